"""Plain integers have the codes torch's quantized tensors have."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from qfx.kernels import onednn

SCALES = st.floats(1e-6, 1e3).map(lambda s: float(torch.tensor(s)))
ZEROS = st.integers(0, 255)
EVERY = torch.arange(256, dtype=torch.uint8)


@given(SCALES, ZEROS)
def test_codes_are_those_of_quint8_bit_for_bit(scale: float, zero: int) -> None:
    ties = (EVERY.float() - zero + 0.5) * scale
    x = torch.cat([torch.randn(200) * scale * 100, ties, torch.tensor([0.0, 1e30, -1e30])])
    assert torch.equal(
        onednn.quantize(x, scale, zero), torch.quantize_per_tensor(x, scale, zero, torch.quint8).int_repr()
    )


@given(SCALES, ZEROS)
def test_values_are_those_of_quint8_bit_for_bit(scale: float, zero: int) -> None:
    wrapped = torch._make_per_tensor_quantized_tensor(EVERY, scale, zero)
    assert torch.equal(onednn.dequantize(EVERY, scale, zero), wrapped.dequantize())
    assert torch.equal(onednn.quantize(wrapped.dequantize(), scale, zero), EVERY)


def test_parameters_may_be_tensors_and_infinities_saturate() -> None:
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0])
    assert onednn.quantize(x, torch.tensor(0.1), torch.tensor(7)).tolist() == [255, 0, 0, 7]
    assert onednn.dequantize(EVERY[:2], torch.tensor(0.5), torch.tensor(1)).tolist() == [-0.5, 0.0]


def test_requantize_is_dequantize_then_quantize() -> None:
    found = onednn.requantize(EVERY, 0.1, 3, 0.25, 90)
    assert torch.equal(found, onednn.quantize(onednn.dequantize(EVERY, 0.1, 3), 0.25, 90))


def test_layouts_stay() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    q = onednn.quantize(x, 0.1, 5)
    assert q.is_contiguous(memory_format=torch.channels_last)
    assert onednn.dequantize(q, 0.1, 5).is_contiguous(memory_format=torch.channels_last)
