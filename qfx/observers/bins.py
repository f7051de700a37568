"""Counting values into bins, and moving counts to other bins.

Compiled by TorchScript inside ``HistogramObserver``: no ``from __future__ import annotations`` here, and numbers that
would be constants of the module are defaults of arguments (scripted functions cannot read constants).
"""

import torch
from torch import Tensor


def in_storage_order(x: Tensor) -> Tensor:
    """Return the elements in one dimension, without a copy where they fill their storage in any order of dimensions."""
    if x.is_contiguous():
        return x.view(-1)
    expected = 1
    for _ in range(x.dim()):
        for d in range(x.dim()):
            if x.size(d) > 1 and x.stride(d) == expected:
                expected *= x.size(d)
                break
    if expected == x.numel():
        return x.as_strided([x.numel()], [1], x.storage_offset())
    return x.reshape(-1)


def count(flat: Tensor, bins: int, low: float, high: float, chunk: int = 1 << 17) -> Tensor:
    """Return how many elements fall into each of ``bins`` equal bins of ``low .. high``; all of them do, none is NaN.

    Args:
        flat: values, 1-d, any stride.
        bins: number of bins.
        low: lower end of the first bin.
        high: upper end of the last bin, which it belongs to.
        chunk: elements worked on at once, so that intermediate results stay in the cache.

    Returns:
        Counts as float32, shape ``(bins,)``.
    """
    if flat.dtype != torch.float32 and flat.dtype != torch.float64:
        flat = flat.float()
    width = high - low
    size = flat.numel() // 8 * 8
    if width > 1e30:  # the difference of two float32 may be none
        return torch.histc(flat.double(), bins, low, high).float()
    # Few values, or a range too narrow to divide by: where torch.histc is faster or more careful
    if size < 1 << 14 or not flat.is_cpu or width < 1e-30:
        return torch.histc(flat, bins, low, high).float()
    # Eight rows of counts, since adding is parallel over rows: two to four times as fast as torch.histc
    rows = torch.zeros([8, bins + 1], dtype=torch.float32)
    one = torch.ones([1, 1], dtype=torch.float32)
    offsets = torch.empty([min(chunk, size)], dtype=flat.dtype)
    places = torch.empty([min(chunk, size)], dtype=torch.int64)
    for start in range(0, size, chunk):
        part = flat[start : min(start + chunk, size)]
        offset, place = offsets[: part.numel()], places[: part.numel()]
        torch.sub(part, low, out=offset)
        place.copy_(offset.mul_(bins / width))
        rows.scatter_add_(1, place.view(8, -1), one.expand(8, part.numel() // 8))
    counts = rows[:, :bins].sum(0)
    counts[-1] += rows[:, bins].sum()  # the upper end itself
    if size < flat.numel():
        counts += torch.histc(flat[size:], bins, low, high)
    return counts


def blocks(flat: Tensor) -> Tensor:
    """Return a view of rows of 64 neighbours, the blocks of ``block_extremes``; leaves out up to 63 last values."""
    return flat[: flat.numel() // 64 * 64].view(-1, 64)


def block_extremes(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return smallest and largest value of each block of 64 neighbours, the left-out ones as a block of their own.

    Twice the cost of finding the smallest and largest of all, and tells later which blocks hold a tail of the
    distribution. (In rows of 64 torch's reductions are as fast as memory is; 32 take a half more, 16 six times as
    long; in longer rows more blocks hold a tail.)
    """
    rows = blocks(flat)
    least, most = rows.amin(1), rows.amax(1)
    rest = flat[rows.numel() :]
    if rest.numel() == 0:
        return least, most
    return torch.cat([least, rest.min().view(1)]), torch.cat([most, rest.max().view(1)])


def count_large(
    flat: Tensor, least: Tensor, most: Tensor, bins: int, low: float, high: float, limit: int, tail_share: float
) -> Tensor:
    """Return counts like ``count``, of a sample in the middle of the range and of all values in its tails.

    The tails are the outermost bins: choosing a range by its error looks at them closely, and a sample would have too
    few of their values. The counts sum to the number of values.

    Args:
        flat: values, 1-d, contiguous.
        least: smallest value of each block, from ``block_extremes``.
        most: largest value of each block.
        bins: number of bins.
        low: lower end of the first bin.
        high: upper end of the last bin.
        limit: the sample has about this many values.
        tail_share: the tails have up to this share of the values at each end.
    """
    numel = float(flat.numel())
    sampled = count(flat[:: prime_stride(flat.numel(), limit)], bins, low, high)
    seen = sampled.cumsum(0, dtype=torch.float64)
    tail = tail_share * float(seen[-1])
    left = int((seen <= tail).sum())
    right = int((float(seen[-1]) - seen[:-1] <= tail).sum()) if bins > 1 else 0
    middle = slice_sum(sampled, left, bins - right)
    if left + right >= bins or middle == 0.0:
        return sampled * (numel / float(seen[-1]))
    width = (high - low) / bins
    tails = (least < low + width * left) | (most > high - width * right)
    rows = blocks(flat)
    # A few thousand blocks at once, so that the copies stay in the cache
    exact = torch.zeros([bins], dtype=torch.float32, device=flat.device)
    for some in tails[: rows.size(0)].nonzero().view(-1).split(1 << 12):
        exact += count(rows.index_select(0, some).view(-1), bins, low, high)
    rest = flat[rows.numel() :]
    if rest.numel() > 0:
        exact += torch.histc(rest.float(), bins, low, high)
    exact[left : bins - right] = 0.0
    scale = (numel - float(exact.sum(dtype=torch.float64))) / middle
    exact[left : bins - right] = sampled[left : bins - right] * scale
    return exact


def slice_sum(counts: Tensor, first: int, last: int) -> float:
    """Return the sum of ``counts[first:last]``, added up in float64."""
    return float(counts[first:last].sum(dtype=torch.float64))


def prime_stride(numel: int, limit: int) -> int:
    """Return a prime of at least ``numel / limit`` that divides no dimension of a tensor with so many elements.

    A stride of 16 on a channels-last tensor would never see the odd channels; this one sees all alike.
    """
    stride = max(2, (numel + limit - 1) // limit)
    while numel % stride == 0 or not _is_prime(stride):
        stride += 1
    return stride


def _is_prime(n: int) -> bool:
    divisor = 2
    while divisor * divisor <= n:
        if n % divisor == 0:
            return False
        divisor += 1
    return True


def rebin(histogram: Tensor, low: float, high: float, new_low: float, new_high: float, bins: int) -> Tensor:
    """Return the counts of ``low .. high`` spread over ``bins`` equal bins of a range that contains it.

    Each old bin is divided into sixteen parts with equal counts, each of which moves as a whole into the new bin around
    its centre, as in the original: what the search finds afterwards is then the same. The total is kept. A range of one
    value moves into the bin that contains it.
    """
    if low == new_low and high == new_high and histogram.numel() == bins:
        return histogram
    # float64: counts add up beyond 2**24, and narrow ranges far from zero lose their edges in float32
    if high - low < 1e-300:  # no float32 range is that narrow and not empty; dividing by it would overflow
        width = (new_high - new_low) / bins
        place = min(bins - 1, int((low - new_low) / width)) if width > 0.0 else bins // 2
        moved = torch.zeros([bins], dtype=histogram.dtype, device=histogram.device)
        moved[place] = histogram.sum()
        return moved
    old = histogram.numel()
    parts_per_value = 16 * old / (high - low)
    edges = torch.arange(bins + 1, dtype=torch.float64, device=histogram.device)
    edges = edges.mul_((new_high - new_low) / bins * parts_per_value).add_((new_low - low) * parts_per_value)
    # How many parts have their centre below each new edge; all of them below the last one, whatever the rounding
    parts = edges.sub_(0.5).ceil_().clamp_(0, 16 * old).to(torch.int64)
    parts[-1] = 16 * old
    parts[0] = 0
    whole = (parts // 16).clamp_(max=old - 1)
    below = histogram.cumsum(0, dtype=torch.float64) - histogram
    at = below[whole] + (parts - whole * 16) * (histogram.double() / 16)[whole]
    return at.diff().to(histogram.dtype)
