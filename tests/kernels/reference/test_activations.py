"""Activations: equal to torch's kernels on every code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qfx.kernels import reference
from qfx.qparams import QParams, dequantize, quantize

OPS = torch.ops.quantized
EVERY_CODE = torch.arange(256).to(torch.uint8).repeat(4)


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (reference.relu, F.relu),
        (lambda x, q: reference.clamp(x, q, 0.0, 6.0), lambda t: OPS.relu6(t, False)),
        (lambda x, q: reference.clamp(x, q, 0.0, 6.0), F.relu6),
        (lambda x, q: reference.clamp(x, q, -1.0, 1.0), F.hardtanh),
        (lambda x, q: reference.clamp(x, q, -0.55, 0.75), lambda t: torch.clamp(t, -0.55, 0.75)),
        (lambda x, q: reference.clamp(x, q, -0.55, 0.75), lambda t: OPS.clamp(t, -0.55, 0.75)),
        (lambda x, q: reference.clamp(x, q, low=0.4), lambda t: torch.clamp(t, min=0.4)),
        (reference.sigmoid, torch.sigmoid),
        (reference.tanh, torch.tanh),
        (reference.hardsigmoid, F.hardsigmoid),
        (lambda x, q: reference.leaky_relu(x, q, q, 0.1), lambda t: F.leaky_relu(t, 0.1)),
    ],
)
def test_functions_that_choose_their_own_output(draw, wrap, ours, torchs) -> None:
    for _ in range(15):
        q = draw()
        assert torch.equal(ours(EVERY_CODE, q), torchs(wrap(EVERY_CODE, q)).int_repr()), q


def test_fixed_outputs(wrap) -> None:
    x = wrap(EVERY_CODE, QParams(0.1, 3, dtype=torch.quint8))
    halves = ((torch.sigmoid, reference.SIGMOID_OUT), (F.hardsigmoid, reference.SIGMOID_OUT))
    for function, fixed in (*halves, (torch.tanh, reference.TANH_OUT)):
        out = function(x)
        assert (out.q_scale(), out.q_zero_point()) == fixed.scalars()


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (reference.sigmoid, OPS.sigmoid),
        (reference.hardswish, OPS.hardswish),
        (lambda x, q, o: reference.elu(x, q, o, 1.7), lambda t, s, z: OPS.elu(t, s, z, 1.7, 1.0, 1.0)),
        (lambda x, q, o: reference.leaky_relu(x, q, o, 0.01), lambda t, s, z: OPS.leaky_relu(t, 0.01, False, s, z)),
    ],
)
def test_functions_with_an_output_scale(draw, wrap, ours, torchs) -> None:
    for _ in range(15):
        q, out = draw(), draw()
        assert torch.equal(ours(EVERY_CODE, q, out), torchs(wrap(EVERY_CODE, q), *out.scalars()).int_repr()), (q, out)


def test_quantize_and_dequantize_themselves(draw, wrap) -> None:
    for _ in range(15):
        q = draw()
        ties = dequantize(EVERY_CODE, q) + 0.5 * float(q.scale)
        values = torch.cat([torch.randn(1024) * 10, ties, torch.tensor([1e6, -1e6])])
        expected = torch.quantize_per_tensor(values, *q.scalars(), torch.quint8).int_repr()
        assert torch.equal(quantize(values, q, saturate_storage=True), expected)
        assert torch.equal(dequantize(EVERY_CODE, q), wrap(EVERY_CODE, q).dequantize())


def test_a_7_bit_relu6_needs_its_upper_bound() -> None:
    """Twice the observed range: the stored type lets 12 through as code 254; the clamp brings it back to 6."""
    q = QParams(6 / 127, 0, dtype=torch.quint8, quant_min=0, quant_max=127)
    beyond = quantize(torch.tensor([12.0]), q, saturate_storage=True)
    assert int(beyond) == 254
    assert int(reference.clamp(beyond, q, 0.0, 6.0)) == 127
