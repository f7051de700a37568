"""All channels at once give what torch's fused kernel gives one by one, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import qfx
from qfx.fake_quantize.averages import move_averages, qparams_of_rows

CODES = [(-128, 127), (-127, 127), (0, 255), (0, 127), (-8, 7)]


def kernel(
    pair: Tensor, low: Tensor, high: Tensor, constant: float, codes: tuple[int, int], symmetric: bool
) -> tuple[Tensor, ...]:
    low, high, channels = low.clone(), high.clone(), pair.shape[0]
    scale, zero_point, on = torch.ones(channels), torch.zeros(channels, dtype=torch.int), torch.tensor([1])
    torch.fused_moving_avg_obs_fake_quant(
        pair, on, on, low, high, scale, zero_point, constant, *codes, 0, True, symmetric
    )
    return low, high, scale, zero_point


def spread(seed: int, channels: int = 129) -> tuple[Tensor, Tensor]:
    """Ranges of all magnitudes: both signs, one sign, an end of zero, almost nothing, nothing."""
    g = torch.Generator().manual_seed(seed)
    size = 10.0 ** torch.empty(channels).uniform_(-12, 6, generator=g)
    low, high = (sign * torch.rand(channels, generator=g) * size for sign in (-1, 1))
    kind = torch.randint(0, 9, (channels,), generator=g)
    low = torch.where(kind == 0, high * 0.3, torch.where((kind == 2) | (kind == 5), 0.0, low))
    high = torch.where(kind == 1, low * 0.3, torch.where((kind == 3) | (kind == 5), 0.0, high))
    low, high = (torch.where(kind == 4, end * 1e-30, end) for end in (low, high))
    return torch.minimum(low, high), torch.maximum(low, high)


def ties(seed: int, channels: int = 129) -> tuple[Tensor, Tensor]:
    """Ranges whose ends are to each other as small numbers, so that many zero points lie half way between two codes."""
    g = torch.Generator().manual_seed(seed)
    size = torch.ldexp(torch.ones(channels), torch.randint(-50, 10, (channels,), generator=g))
    low, high = (torch.randint(1, 9, (channels,), generator=g) * size for _ in range(2))
    return -low, high


@pytest.mark.parametrize("ranges", [spread, ties])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("codes", CODES)
@given(seed=st.integers(0, 2**31), constant=st.sampled_from([0.01, 0.1, 1.0, 0.3]))
def test_they_are_the_kernels(
    ranges: Callable[[int], tuple[Tensor, Tensor]], codes: tuple[int, int], symmetric: bool, seed: int, constant: float
) -> None:
    pair, (low, high) = torch.stack(ranges(seed), 1), ranges(seed + 1)
    expected = kernel(pair, low, high, constant, codes, symmetric)
    assert move_averages(pair, low, high, constant)
    found = (low, high, *qparams_of_rows(low, high, *codes, symmetric=symmetric))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pair, low: (pair.index_fill(0, torch.tensor(2), float("nan")), low),
        lambda pair, low: (pair.index_fill(0, torch.tensor(2), float("inf")), low),
        lambda pair, low: (pair, low.index_fill(0, torch.tensor(1), -float("inf"))),
        lambda pair, low: (pair, low[:0]),
        lambda pair, low: (pair.double(), low),
    ],
    ids=["nan", "infinity", "infinite average", "first time", "double"],
)
def test_what_they_do_not_take_is_left_to_the_kernel(spoil: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    low, high = spread(3)
    pair, low = spoil(torch.stack([low, high], 1), low)
    before = low.clone()
    assert not move_averages(pair, low, high, 0.01)
    torch.testing.assert_close(low, before, rtol=0, atol=0)


def test_the_module_calls_the_kernel_once_and_then_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    whole = torch.fused_moving_avg_obs_fake_quant

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return whole(*args)

    monkeypatch.setattr(torch, "fused_moving_avg_obs_fake_quant", counted)
    fake: Any = qfx.default_fused_per_channel_wt_fake_quant()
    low, high, on = torch.tensor([]), torch.tensor([]), torch.tensor([1])
    scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int)
    for step in range(4):
        x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(step)) * 10.0**-step
        expected = whole(x, on, on, low, high, scale, zero_point, 0.01, -128, 127, 0, True, True)
        assert torch.equal(fake(x), expected)
        assert torch.equal(fake.scale, scale)
        assert torch.equal(fake.zero_point, zero_point)
        assert torch.equal(fake.activation_post_process.min_val, low)
    assert len(calls) == 1
