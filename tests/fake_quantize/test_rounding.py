"""Rounding in vectorised passes: torch's numbers and gradients, to the bit."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qfx
from qfx.fake_quantize import rounding
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


def _weight_fake_quant(codes: tuple[int, int], symmetric: bool) -> Any:
    scheme = torch.per_channel_symmetric if symmetric else torch.per_channel_affine
    return qfx.FusedMovingAvgObsFakeQuantize.with_args(
        observer=qfx.MovingAveragePerChannelMinMaxObserver,
        quant_min=codes[0],
        quant_max=codes[1],
        dtype=torch.qint8 if codes[0] else torch.quint8,
        qscheme=scheme,
        averaging_constant=0.2,
    )()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(0, 255), (-128, 127), (-8, 7)]),
    st.booleans(),
    st.sampled_from([(5, 4, 3, 3), (3, 1, 1, 1), (6, 2)]),
    st.sampled_from(["on", "observer off", "rounding off"]),
    st.sampled_from([1, 80, 1 << 19]),
)
def test_a_folded_weight_is_rounded_in_place_to_the_same_numbers_and_gradients(
    seed: int, codes: tuple[int, int], symmetric: bool, shape: tuple[int, ...], switches: str, at_once: int
) -> None:
    torch.manual_seed(seed)
    quickly = _weight_fake_quant(codes, symmetric)
    plainly = copy.deepcopy(quickly)
    weight = torch.randn(shape)
    for step in range(4):
        if step == 2 and switches != "on":
            for each in (quickly, plainly):
                (qfx.disable_observer if switches == "observer off" else qfx.disable_fake_quant)(each)
        weight = weight * (1 + 0.5 * torch.rand(shape))  # grows faster than the average, so some channels saturate
        factor = torch.randn(shape[0], *[1] * (len(shape) - 1))
        found: list[list[torch.Tensor]] = []
        for fake in (quickly, plainly):
            w, f = weight.clone().requires_grad_(), factor.clone().requires_grad_()
            y = fake.of_product(w, f) if fake is quickly else fake(w * f)
            with mock.patch.object(rounding, "_AT_ONCE", at_once):
                y.backward(torch.linspace(-1, 1, y.numel()).reshape(shape))
            assert w.grad is not None
            assert f.grad is not None
            found.append([y.detach(), w.grad, f.grad, *(buffer.clone() for buffer in fake.buffers())])
        assert all(map(torch.equal, *found))


def test_a_hooked_or_other_rounding_sees_the_folded_weight() -> None:
    seen: list[torch.Tensor] = []
    fake = _weight_fake_quant((-128, 127), symmetric=True)
    fake.register_forward_hook(lambda module, inputs, result: seen.append(inputs[0].detach().clone()))
    weight, factor = torch.randn(3, 2), torch.rand(3, 1)
    fake.of_product(weight, factor)
    assert torch.equal(seen[0], weight * factor)


@pytest.mark.parametrize("size", [0.1, 5.0])
def test_known_ends_give_the_same_numbers_and_gradients(size: float) -> None:
    scale, zero_point = torch.tensor([0.02]), torch.tensor([3], dtype=torch.int32)
    found: list[list[torch.Tensor]] = []
    x = torch.randn(50) * size
    for pair in (None, ends(x, None)):
        each = x.clone().requires_grad_()
        y = rounded(each, scale, zero_point, None, 0, 127, pair)
        y.backward(torch.linspace(-1, 1, 50))
        assert each.grad is not None
        found.append([y.detach(), each.grad])
    assert all(map(torch.equal, *found))
