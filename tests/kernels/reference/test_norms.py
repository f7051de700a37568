"""Batch norm, layer norm, padding: equal to torch's kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qfx.kernels import reference
from qfx.qparams import QParams

OPS = torch.ops.quantized


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("op", "shape", "layout"),
    [
        ("batch_norm1d", (4, 64, 10), torch.contiguous_format),
        ("batch_norm2d", (2, 64, 5, 6), torch.contiguous_format),
        ("batch_norm2d", (2, 64, 5, 6), torch.channels_last),
        ("batch_norm2d", (2, 35, 5, 6), torch.channels_last),
        ("batch_norm3d", (2, 16, 3, 4, 5), torch.contiguous_format),
    ],
)
def test_batch_norm(draw, wrap, op, shape, layout, relu: bool) -> None:
    for _ in range(4):
        x = torch.randint(0, 256, shape).to(torch.uint8).contiguous(memory_format=layout)
        n, q, out = shape[1], draw(), draw()
        weight, bias, mean, var = torch.randn(n), torch.randn(n), torch.randn(n), torch.rand(n) + 0.1
        kernel = getattr(OPS, f"{op}_relu" if relu else op)
        expected = kernel(wrap(x, q), weight, bias, mean, var, 1e-5, *out.scalars()).int_repr()
        found = reference.batch_norm(x, q, out, weight, bias, mean, var, 1e-5, relu=relu)
        assert torch.equal(found, expected), (q, out)


@pytest.mark.parametrize("shape", [(64,), (128,), (4, 64)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(draw, wrap, shape, affine: bool) -> None:
    for _ in range(10):
        x = torch.randint(0, 256, (20, *shape)).to(torch.uint8)
        q, out = draw(), draw()
        out = QParams(float(out.scale) / 2, out.zero_point, dtype=torch.quint8)
        weight, bias = (torch.randn(shape), torch.randn(shape)) if affine else (None, None)
        expected = OPS.layer_norm(wrap(x, q), list(shape), weight, bias, 1e-5, *out.scalars()).int_repr()
        assert torch.equal(reference.layer_norm(x, shape, q, out, weight, bias, 1e-5), expected), (q, out)


@pytest.mark.parametrize("shape", [(2, 4, 70), (3, 5, 6, 7), (2, 3, 3, 4, 5)])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm(draw, wrap, shape, affine: bool) -> None:
    for _ in range(10):
        x = torch.randint(0, 256, shape).to(torch.uint8)
        q, out = draw(), draw()
        weight, bias = (torch.randn(shape[1]), torch.randn(shape[1])) if affine else (None, None)
        expected = OPS.instance_norm(wrap(x, q), weight, bias, 1e-5, *out.scalars()).int_repr()
        assert torch.equal(reference.instance_norm(x, q, out, weight, bias, 1e-5), expected), (q, out)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("value", "mode"), [(0.0, "constant"), (1.3, "constant"), (-1e5, "constant"), (0.0, "reflect")]
)
def test_pad(draw, wrap, layout, value: float, mode: str) -> None:
    for _ in range(4):
        x, q = torch.randint(0, 256, (2, 5, 7, 6)).to(torch.uint8).contiguous(memory_format=layout), draw()
        options = {"value": value} if mode == "constant" else {}
        expected = F.pad(wrap(x, q), (1, 2, 0, 1), mode=mode, **options).int_repr()
        assert torch.equal(reference.pad(x, q, (1, 2, 0, 1), value, mode), expected), q
