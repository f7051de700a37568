"""The search of `l2_search` for many histograms at once.

The same sums in the same order, so the same bins; what the first few cuts do not settle, few histograms, is searched
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qfx.observers.l2_search import expected_errors, l2_bins, l2_range

_CUTS = 128  # looked at from each side, as the search of one histogram does at first
_TRIED = 4  # ranges whose errors are compared; most searches stop within these
_ROWS = 32  # histograms at a time: their errors stay in the cache


def l2_ranges(histograms: Tensor, lows: Tensor, highs: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return the ranges of values to quantize, like `l2_search.l2_range` for each row.

    Args:
        histograms: float32 counts, shape ``(rows, bins)``, no row all zero, on the CPU.
        lows: the value where each histogram begins, shape ``(rows,)``.
        highs: where it ends.
        levels: how many steps a range will be divided into.
    """
    if histograms.shape[1] <= _TRIED:
        both = [l2_range(*row, levels) for row in zip(histograms, lows, highs, strict=True)]
        return torch.stack([low for low, _ in both]), torch.stack([high for _, high in both])
    parts = [_bins(rows, levels) for rows in histograms.split(_ROWS)]
    starts, ends = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    width = (highs - lows) / histograms.shape[1]
    flat = lows == highs
    return torch.where(flat, lows, lows + width * starts), torch.where(flat, highs, lows + width * (ends + 1))


def _bins(histograms: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    cumulated, totals = histograms.cumsum(1), histograms.sum(1, keepdim=True).double()
    starts, ends, sizes, cuts = _first_cuts(cumulated, totals)
    starts, ends, sizes = _and_later_cuts(cumulated, totals, starts, ends, sizes, cuts)
    rises = _rises(histograms, starts, ends, sizes, levels)
    settled = rises.any(1)
    before = rises.to(torch.int8).argmax(1, keepdim=True).sub_(1).clamp_(min=0)
    starts, ends = starts.gather(1, before).squeeze(1), ends.gather(1, before).squeeze(1)
    for row in torch.nonzero(~settled).flatten().tolist():
        starts[row], ends[row] = l2_bins(histograms[row], levels)
    return starts, ends


def _rises(histograms: Tensor, starts: Tensor, ends: Tensor, sizes: Tensor, levels: int) -> Tensor:
    """Return for each range tried whether its error is above that of the one before; shape ``(rows, tried)``.

    Where few values were seen the first cut makes it worse already, and the rest is not looked at.
    """
    exists = torch.arange(starts.shape[1]) < sizes
    errors = expected_errors(histograms.unsqueeze(1), starts[:, :2], ends[:, :2], levels)
    rises = torch.zeros_like(exists)
    rises[:, 1] = (errors[:, 1] > errors[:, 0]) & exists[:, 1]
    on = torch.nonzero(~rises[:, 1]).flatten()
    if on.numel():
        more = expected_errors(histograms[on].unsqueeze(1), starts[on, 2:], ends[on, 2:], levels)
        errors = torch.cat([errors[on], more], 1)
        rises[on, 1:] = (errors[:, 1:] > errors[:, :-1]) & exists[on, 1:]
    return rises


def _first_cuts(cumulated: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the (start, end) bins tried until the right end stays in place, how many, and the cuts it had by then.

    See ``l2_search._first_cuts``; a row for which these cuts are too few to tell gets a size of -1.
    """
    bins = cumulated.shape[1]
    most = min(_CUTS, bins)
    cut = torch.arange(1, most + 1, dtype=torch.float64).mul_(1e-5)
    left = torch.searchsorted(cumulated, (cut * totals).to(cumulated)).clamp_(max=bins - 1)
    left = torch.cat([torch.zeros_like(left[:, :1]), left], 1)
    right = torch.searchsorted(cumulated, ((1.0 - cut) * totals).to(cumulated), right=True).sub_(1)
    right = torch.cat([torch.full_like(right[:, :1], bins - 1), right.clamp_(min=0)], 1)
    # Nothing is taken from behind an empty jump: the running minimum is 0 from there on.
    from_right = (-right.diff(dim=1)).cummin(1)[0].clamp_(min=0)
    keys = torch.cat([from_right, left.diff(dim=1).cummin(1)[0].clamp_(min=0)], 1)
    unknown = (keys[:, most - 1] > 0) | (keys[:, -1] > 0)
    order = torch.sort(keys, dim=1, descending=True, stable=True)[1]
    is_left = order >= most
    moves = is_left.cumsum(1)
    starts = left.gather(1, moves)
    ends = right.gather(1, (torch.arange(1, 2 * most + 1) - moves).clamp_(max=most))
    crossed = (starts >= ends).to(torch.int8)
    until = torch.where(crossed.any(1), crossed.argmax(1) + 1, 2 * most)
    sizes = torch.minimum(until, (keys > 0).sum(1)).masked_fill_(unknown, -1)
    # Where the ends meet, the one that moved stops at the other.
    return (
        torch.where(is_left, torch.minimum(starts, ends), starts),
        torch.where(is_left, ends, torch.maximum(starts, ends)),
        sizes.unsqueeze(1),
        (from_right > 0).sum(1, keepdim=True),
    )


def _and_later_cuts(
    cumulated: Tensor, totals: Tensor, starts: Tensor, ends: Tensor, sizes: Tensor, cuts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first few ranges tried: those of `_first_cuts`, then those where only the right end moves.

    See ``l2_search._later_cuts``. The sizes become how many of the ranges exist; -1 stays.
    """
    bins = cumulated.shape[1]
    last = (sizes - 1).clamp_(min=0)
    none = sizes <= 0
    start = starts.gather(1, last).masked_fill_(none, 0)
    end = ends.gather(1, last).masked_fill_(none, bins - 1)
    position = torch.arange(bins - 1)
    reached, missed = cumulated[:, :-1], cumulated[:, 1:]
    fewest = torch.maximum(((1.0 - missed.double() / totals) * 1e5).floor_(), cuts + 1)
    stops = torch.zeros_like(missed, dtype=torch.bool)
    for more in range(3):
        limit = ((1.0 - (fewest + more) * 1e-5) * totals).to(cumulated)
        stops |= (limit < missed) & (limit >= reached)
    stops &= (position >= start) & (position < end)
    later = torch.where(stops, position, -1).topk(_TRIED, dim=1)[0]
    there = (later >= 0).sum(1, keepdim=True)
    place = torch.arange(_TRIED)
    number = (place - sizes.clamp(min=0)).clamp_(min=0)
    first = place < sizes
    return (
        torch.where(first, starts[:, :_TRIED], start),
        torch.where(first, ends[:, :_TRIED], later.gather(1, number).clamp_(min=0)),
        torch.where(sizes < 0, sizes, sizes + there),
    )
