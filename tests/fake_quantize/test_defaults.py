"""The ready-made fake-quantize modules round to the codes their names promise."""

from __future__ import annotations

import pytest
import torch

import qfx

X = torch.linspace(-1, 1, 64).reshape(4, 16) * torch.tensor([[0.1], [0.5], [1.0], [2.0]])


@pytest.mark.parametrize(
    ("name", "low", "high", "per_channel"),
    [
        ("default_dynamic_fake_quant", 0, 255, False),
        ("default_histogram_fake_quant", 0, 127, False),
        ("default_fused_wt_fake_quant", -128, 127, False),
        ("fused_wt_fake_quant_range_neg_127_to_127", -127, 127, False),
        ("default_fused_per_channel_wt_fake_quant", -128, 127, True),
        ("fused_per_channel_wt_fake_quant_range_neg_127_to_127", -127, 127, True),
        ("default_embedding_fake_quant", 0, 255, True),
        ("default_embedding_fake_quant_4bit", 0, 15, True),
    ],
)
def test_values_are_rounded_to_codes_of_the_range(name: str, low: int, high: int, per_channel: bool) -> None:
    module = getattr(qfx, name)()
    rounded = module(X)
    assert (module.quant_min, module.quant_max) == (low, high)
    scale, zero_point = module.scale, module.zero_point  # what it rounded with
    assert scale.numel() == (4 if per_channel else 1)
    scale = scale.reshape(-1, 1)
    assert float(((rounded - X).abs() / scale).max()) <= 1.01  # nothing of this is clamped by more than a step
    codes = rounded / scale + zero_point.reshape(-1, 1)
    assert float(codes.min()) >= low - 1e-3
    assert float(codes.max()) <= high + 1e-3


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("default_affine_fixed_qparams_fake_quant", 0, 255 / 256),
        ("default_symmetric_fixed_qparams_fake_quant", -1, 127 / 128),
    ],
)
def test_fixed_ranges_do_not_follow_the_data(name: str, low: float, high: float) -> None:
    rounded = getattr(qfx, name)()(torch.tensor([-9.0, 0.0, 9.0]))
    assert rounded.tolist() == [low, 0.0, high]
