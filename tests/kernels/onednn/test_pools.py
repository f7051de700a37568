"""Pools and means of codes: exact averages of windows, rounded once."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qfx.kernels import onednn

SHAPES = {1: (2, 3, 300), 2: (2, 3, 17, 19), 3: (2, 3, 7, 8, 9)}  # more places than 255
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def codes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def layouts(n: int) -> list[torch.Tensor]:
    x = codes(*SHAPES[n])
    return [x, x.contiguous(memory_format=LAST[n])] if n in LAST else [x]


def rounded(total: int, count: int, zero: int) -> int:
    """Half to the even code."""
    return max(0, min(255, round(Fraction(total, count) + zero)))


def exact(sums: torch.Tensor, counts: torch.Tensor, zero: int) -> torch.Tensor:
    pairs = zip(sums.long().flatten().tolist(), counts.long().expand_as(sums).flatten().tolist(), strict=True)
    return torch.tensor([rounded(s, c, zero) for s, c in pairs], dtype=torch.uint8).reshape(sums.shape)


@pytest.mark.parametrize("how", [{}, {"stride": 1}, {"padding": 1}, {"dilation": 2}, {"ceil_mode": True}])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_max_pool(n: int, how: dict[str, Any]) -> None:
    each = {key: value if isinstance(value, bool) else (value,) * n for key, value in how.items()}
    for x in layouts(n):
        found = onednn.max_pool(x, (2,) * n, **({"padding": (0,) * n, "dilation": (1,) * n} | each))
        assert torch.equal(found, getattr(F, f"max_pool{n}d")(x.double(), 2, **how).to(torch.uint8))


@pytest.mark.parametrize("zero", [0, 97])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_avg_pool(n: int, ceil: bool, include: bool, zero: int) -> None:
    pool = getattr(F, f"avg_pool{n}d")
    kernel, pad = (3,) * n, (1,) * n
    for x in layouts(n):
        found = onednn.avg_pool(x, zero, kernel, (2,) * n, pad, ceil, include)
        values = x.double() - zero
        # The average times the number of codes counted in it is the integer sum.
        counts = pool(torch.ones_like(values), 3, 2, 1, ceil, False)
        means = pool(values, 3, 2, 1, ceil, include)
        sums = pool(values, 3, 2, 1, ceil, False) * _valid(pool, values, ceil)
        divisors = (sums / means.where(means != 0, sums.where(sums != 0, counts))).round()
        divisors = divisors.where(sums != 0, torch.ones_like(divisors))
        assert torch.equal(found, exact(sums.round(), divisors, zero))
        assert found.stride() == pool(x.float(), 3, 2, 1, ceil, include).stride()


def _valid(pool: Any, values: torch.Tensor, ceil: bool) -> torch.Tensor:
    """How many codes (not padding) each window has."""
    inside = pool(torch.ones_like(values), 3, 2, 1, ceil, True)
    whole = pool(torch.ones_like(values), 3, 2, 1, ceil, False)
    assert bool((whole == 1).all())
    dims = values.dim() - 2
    if dims > 1:
        return pool(torch.ones_like(values), 3, 2, 1, ceil, True, 1).round()
    full = F.avg_pool2d(torch.ones_like(values).unsqueeze(-2), (1, 3), (1, 2), (0, 1), ceil, True, 1).squeeze(-2)
    assert full.shape == inside.shape
    return full.round()


def test_a_divisor_of_ones_own() -> None:
    x = codes(2, 3, 6, 6)
    found = onednn.avg_pool(x, 10, (2, 2), padding=(0, 0), divisor_override=3)
    sums = F.avg_pool2d(x.double() - 10, 2, divisor_override=1)
    assert torch.equal(found, exact(sums, torch.tensor(3), 10))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, None])
def test_adaptive_avg_pool(n: int, size: int | None) -> None:
    pool = getattr(F, f"adaptive_avg_pool{n}d")
    for x in layouts(n):
        found = onednn.adaptive_avg_pool(x, 31, (size,) * n)
        sizes = x.shape[2:] if size is None else (size,) * n
        means = pool(x.double() - 31, sizes)
        assert torch.equal(found, (means + 31).round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("dim", [None, [2, 3], [1], [-1], [0, 2]])
@pytest.mark.parametrize("keepdim", [True, False])
def test_mean(dim: list[int] | None, keepdim: bool) -> None:
    x = codes(2, 3, 4, 8)
    zero = 55
    dims = list(range(4)) if dim is None else dim
    sums = (x.long() - zero).sum(dims, keepdim=keepdim)
    count = x.numel() // max(sums.numel(), 1)
    assert torch.equal(onednn.mean(x, zero, dim, keepdim), exact(sums, torch.tensor(count), zero))


def test_ties_go_to_the_even_code() -> None:
    x = torch.tensor([[1, 2], [2, 3], [0, 1]], dtype=torch.uint8)
    assert onednn.mean(x, 0, [1]).tolist() == [2, 2, 0]
    assert onednn.mean(x, 1, [1]).tolist() == [2, 2, 0]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_defaults_are_those_of_torch(n: int) -> None:
    x = codes(*SHAPES[n])
    assert torch.equal(onednn.max_pool(x, (2,) * n), getattr(F, f"max_pool{n}d")(x.double(), 2).to(torch.uint8))
    sums = getattr(F, f"avg_pool{n}d")(x.double(), 2) * 2**n
    assert torch.equal(onednn.avg_pool(x, 0, (2,) * n), exact(sums, torch.tensor(2**n), 0))


def test_a_large_divisor_is_divided_by_exactly() -> None:
    x = codes(4, 3, 64, 64)
    found = onednn.avg_pool(x, 0, (64, 64), padding=(0, 0), divisor_override=1_000_003)
    sums = F.avg_pool2d(x.double(), 64, divisor_override=1)
    assert torch.equal(found, exact(sums, torch.tensor(1_000_003), 0))
