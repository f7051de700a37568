"""Sums, products, concatenation: equal to torch's kernels, ties included."""

from __future__ import annotations

import pytest
import torch

from qfx.kernels import reference
from qfx.qparams import QParams

OPS = torch.ops.quantized
WHOLE_VECTORS = 1024


def codes(n: int = WHOLE_VECTORS) -> torch.Tensor:
    return torch.randint(0, 256, (n,)).to(torch.uint8)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
@pytest.mark.parametrize("n", [WHOLE_VECTORS, 37])
def test_add(draw, wrap, using, engine: str, relu: bool, n: int) -> None:
    for _ in range(30):
        a, b, p, q, out = codes(n), codes(n), draw(), draw(), draw()
        if engine == "qnnpack" and relu and out.zero_point == 255:
            continue  # an empty range: see test_qnnpack_refuses_a_relu_that_leaves_one_code
        with using(engine):
            kernel = OPS.add_relu if relu else OPS.add
            expected = kernel(wrap(a, p), wrap(b, q), *out.scalars()).int_repr()
        found = reference.add(
            a,
            b,
            p,
            q,
            out,
            relu=relu,
            lanes="scalar" if n < 64 else "vector",
            engine="qnnpack" if engine == "qnnpack" else "fbgemm",
        )
        assert torch.equal(found, expected), (p, q, out)


def test_qnnpack_refuses_a_relu_that_leaves_one_code(wrap, using) -> None:
    x = wrap(codes(), QParams(0.1, 0, dtype=torch.quint8))
    with using("qnnpack"), pytest.raises(RuntimeError, match="failed to create QNNPACK Add operator"):
        OPS.add_relu(x, x, 0.1, 255)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("engine", ["x86", "onednn", "qnnpack"])
def test_mul(draw, wrap, using, engine: str, relu: bool) -> None:
    for n in (WHOLE_VECTORS, 37):
        for _ in range(20):
            a, b, p, q, out = codes(n), codes(n), draw(), draw(), draw()
            scale = float(p.scale) * float(q.scale) * float(out.scale) * 400
            out = QParams(scale, out.zero_point, dtype=torch.quint8)
            with using(engine):
                kernel = OPS.mul_relu if relu else OPS.mul
                expected = kernel(wrap(a, p), wrap(b, q), *out.scalars()).int_repr()
            assert torch.equal(reference.mul(a, b, p, q, out, relu=relu), expected), (p, q, out)


@pytest.mark.parametrize("op", ["add", "mul"])
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e30])
def test_tiny_and_huge_scales(wrap, op: str, scale: float) -> None:
    a, b, out = codes(), codes(), QParams(scale, 100, dtype=torch.quint8)
    p, q = QParams(0.05, 3, dtype=torch.quint8), QParams(0.1, 200, dtype=torch.quint8)
    expected = getattr(OPS, op)(wrap(a, p), wrap(b, q), *out.scalars()).int_repr()
    assert torch.equal(getattr(reference, op)(a, b, p, q, out), expected)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("value", [0.3, -1.7, 50.0, -50.0, 0.0, 1e4, -1e4])
@pytest.mark.parametrize("op", ["add_scalar", "mul_scalar"])
def test_scalars(draw, wrap, op: str, value: float, relu: bool) -> None:
    for _ in range(10):
        x, q = codes(), draw()
        expected = getattr(OPS, f"{op}_relu" if relu else op)(wrap(x, q), value)
        found, out = getattr(reference, op)(x, q, value, relu=relu)
        assert out.scalars() == (expected.q_scale(), expected.q_zero_point())
        assert torch.equal(found, expected.int_repr()), (q, value)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", ["flat", "contiguous", "channels_last", "same parameters"])
def test_cat(draw, wrap, layout: str, relu: bool) -> None:
    for _ in range(10):
        parts, params, out = [], [], draw()
        for channels in (64, 128):
            x = codes(2 * channels * 12) if layout == "flat" else codes(2 * channels * 12).reshape(2, channels, 3, 4)
            if layout not in ("flat", "contiguous"):
                x = x.contiguous(memory_format=torch.channels_last)
            parts.append(x)
            params.append(out if layout == "same parameters" else draw())
        dim = 0 if layout == "flat" else 1
        kernel = OPS.cat_relu if relu else OPS.cat
        expected = kernel([wrap(*pair) for pair in zip(parts, params, strict=True)], dim, *out.scalars())
        assert torch.equal(reference.cat(parts, params, out, dim, relu=relu), expected.int_repr())
