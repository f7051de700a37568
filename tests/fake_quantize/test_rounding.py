"""Rounding in vectorised passes: torch's numbers and gradients, to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qfx
from qfx.fake_quantize.rounding import ends, quick, rounded


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(0, 255), (0, 127), (-128, 127), (-8, 7)]),
    st.floats(1e-4, 2.0),
    st.sampled_from([None, 0, 1]),
    st.booleans(),
)
def test_numbers_and_gradients_are_those_of_torchs_kernels(
    seed: int, codes: tuple[int, int], size: float, axis: int | None, one_zero: bool
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(6, 5, 7)
    channels = 1 if axis is None else x.shape[axis]
    scale = torch.rand(channels) * size + 1e-3
    zero_point = torch.randint(codes[0], codes[1] + 1, (channels,), dtype=torch.int32)
    if one_zero:
        zero_point.fill_(zero_point[0])
    # Some values exactly between two codes
    x[0] = (torch.randint(-300, 300, x[0].shape) + 0.5) * scale[0]
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = rounded(mine, scale, zero_point, axis, *codes)
    expected = (
        torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point, *codes)
        if axis is None
        else torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, axis, *codes)
    )
    assert torch.equal(found, expected)
    gradient = torch.randn_like(x)
    found.backward(gradient)
    expected.backward(gradient)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_moving_average_learns_the_same_from_the_ends(axis: int | None, memory_format: torch.memory_format) -> None:
    def buffers(channels: int) -> list[torch.Tensor]:
        low, high = torch.full((channels,), float("inf")), torch.full((channels,), float("-inf"))
        return [low, high, torch.ones(channels), torch.zeros(channels, dtype=torch.int32)]

    on, channels = torch.ones(1, dtype=torch.long), {None: 1, 0: 4, 1: 3}[axis]
    whole, few = buffers(channels), buffers(channels)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5).contiguous(memory_format=memory_format)
        per_channel = axis is not None
        rows = x.transpose(0, 1) if axis == 1 else x  # the kernel takes channels first only
        torch.fused_moving_avg_obs_fake_quant(rows, on, on, *whole, 0.1, -128, 127, 0, per_channel, per_channel)
        pair = ends(x, axis)
        torch.fused_moving_avg_obs_fake_quant(pair, on, on, *few, 0.1, -128, 127, 0, per_channel, per_channel)
        assert all(map(torch.equal, whole, few))


def test_only_plain_float32_on_the_cpu_goes_the_quick_way() -> None:
    x = torch.randn(3)
    assert quick(x)
    assert quick(torch.nn.Parameter(x))
    for other in (x.double(), x.half(), torch.empty(0), torch.empty(3, device="meta"), torch.arange(3), "x", None):
        assert not quick(other)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", [qfx.default_fused_act_fake_quant, qfx.default_fake_quant])
def test_a_script_gives_the_same(kind: Any) -> None:
    x, plain = torch.randn(64), kind()
    assert torch.equal(torch.jit.script(kind())(x), plain(x))


def test_an_exported_module_gives_the_same() -> None:
    x, plain = torch.randn(64), qfx.default_fused_act_fake_quant()
    plain(x)
    exported = torch.export.export(copy.deepcopy(plain), (x,)).module()
    assert torch.equal(exported(x), plain(x))
