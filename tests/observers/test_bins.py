from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.observers.bins import block_extremes, count, count_large, in_storage_order, prime_stride, rebin


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 14, 50_003, 300_001])
@pytest.mark.parametrize("kind", [torch.randn, lambda n: torch.randn(n).relu(), lambda n: torch.rand(n) + 1000])
def test_count_is_torch_histc_up_to_rounding_at_edges(size: int, kind: object) -> None:
    x = kind(size)
    low, high = float(x.min()), float(x.max())
    mine, theirs = count(x, 256, low, high), torch.histc(x, 256, low, high)
    assert mine.sum() == size
    moved = (mine.cumsum(0) - theirs.cumsum(0)).abs().max()
    assert moved <= max(1, size * 1e-3)


@pytest.mark.parametrize("low_high", [(-3e38, 3e38), (0.0, 1e-40), (5.0, 5.0)])
def test_count_takes_extreme_ranges(low_high: tuple[float, float]) -> None:
    low, high = low_high
    x = torch.tensor([low, high]).repeat(1 << 14)
    assert count(x, 16, float(x.min()), float(x.max())).sum() == x.numel()


def test_count_takes_strided_and_half_tensors() -> None:
    x = torch.randn(100_000)
    low, high = float(x.min()), float(x.max())
    assert torch.equal(count(x[::3], 64, low, high), count(x[::3].contiguous(), 64, low, high))
    assert count(x.half(), 64, -6.0, 6.0).sum() == 100_000


def test_storage_order_copies_only_what_has_holes() -> None:
    x = torch.randn(2, 3, 4, 5)
    for dense in (x, x.permute(2, 0, 3, 1), x.contiguous(memory_format=torch.channels_last), x[1]):
        flat = in_storage_order(dense)
        assert flat.data_ptr() == dense.data_ptr()
        assert torch.equal(flat.sort()[0], dense.reshape(-1).sort()[0])
    for holes in (x[:, ::2], x[..., 1:], x[:1].expand(2, 3, 4, 5)):
        assert torch.equal(in_storage_order(holes).sort()[0], holes.reshape(-1).sort()[0])


def test_block_extremes_see_every_value() -> None:
    for size in (32, 33, 1000, 6400):
        x = torch.randn(size)
        least, most = block_extremes(x)
        assert (least.min(), most.max()) == (x.min(), x.max())


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 1 << 28), st.integers(1, 1 << 20))
def test_the_stride_of_a_sample_is_prime_and_divides_no_dimension(numel: int, limit: int) -> None:
    stride = prime_stride(numel, limit)
    assert stride >= numel / limit
    assert numel % stride
    assert all(stride % d for d in range(2, int(stride**0.5) + 1))


def test_a_large_tensor_is_counted_exactly_in_its_tails_and_in_total() -> None:
    x = torch.randn(300_001)
    low, high = float(x.min()), float(x.max())
    exact = count(x, 512, low, high)
    mine = count_large(x, *block_extremes(x), 512, low, high, 20_000, 1e-3)
    torch.testing.assert_close(mine.sum(), torch.tensor(300_001.0))
    seen = exact.cumsum(0)
    tails = (seen < 0.0005 * x.numel()) | (seen > 0.9995 * x.numel())
    assert tails.sum() > 100
    assert torch.equal(mine[tails], exact[tails])
    torch.testing.assert_close(mine, exact, rtol=0.6, atol=100.0)


def test_channels_last_channels_are_sampled_alike() -> None:
    x = torch.zeros(4, 16, 64, 64).contiguous(memory_format=torch.channels_last)
    x[:, 3] = 1.0
    flat = in_storage_order(x)
    found = count_large(flat, *block_extremes(flat), 4, 0.0, 1.0, 10_000, 1e-3)
    torch.testing.assert_close(found, torch.tensor([15 / 16, 0, 0, 1 / 16]) * x.numel(), rtol=0.01, atol=1.0)


@settings(deadline=None, max_examples=50)
@given(st.floats(-10, 10), st.floats(0, 10), st.floats(0, 20), st.floats(0, 20), st.integers(1, 40), st.integers(1, 40))
def test_rebin_keeps_the_total(low: float, width: float, left: float, right: float, old: int, new: int) -> None:
    histogram = torch.arange(1.0, old + 1)
    moved = rebin(histogram, low, low + width, low - left, low + width + right, new)
    assert moved.shape == (new,)
    torch.testing.assert_close(moved.sum(), histogram.sum())
    assert bool((moved >= 0).all())


def test_rebin_puts_counts_where_they_were() -> None:
    moved = rebin(torch.tensor([8.0, 0.0, 4.0, 4.0]), 0.0, 4.0, -4.0, 4.0, 4)
    assert moved.tolist() == [0.0, 0.0, 8.0, 8.0]
    assert rebin(torch.tensor([0.0, 5.0]), 3.0, 3.0, 0.0, 4.0, 4).tolist() == [0.0, 0.0, 0.0, 5.0]
    same = torch.ones(4)
    assert rebin(same, 0.0, 1.0, 0.0, 1.0, 4) is same
