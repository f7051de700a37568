"""Choosing the range of a histogram by its expected squared quantization error, vectorised.

The search is the one of caffe2's norm minimization, which ``torch.ao.quantization`` follows: starting from the whole
range, cut 0.001 % of the values off the end that thereby moves by more bins, until the error grows. Three
observations make it fast without changing its path:

- *Which cuts are tried does not depend on the errors.* The ends move by known jumps: those of ``k`` cuts from the
  left, and from the right. Taking the end with the larger next jump merges two lists by their heads, and merging by
  heads is sorting by each list's running minimum (an item behind a smaller head waits for it, and then goes at once).
- *A jump of zero bins waits for ever* on the left, since the right end wins ties. Behind a zero on the right come
  only moves of the right end, and which bins it stops at follows from the cumulated counts.
- *The error of a range is one dot product.* With counts spread evenly inside bins, it is the sum over bins of count
  times the integral of the squared error over the bin; regrouped by edges, ``sum(F(edge) * (count_left -
  count_right))`` where ``F`` is the integral of the squared error of a rounding with ``levels`` steps, saturating at
  both ends.

Compiled by TorchScript inside ``HistogramObserver``: no ``from __future__ import annotations`` here.
"""

import torch
from torch import Tensor


def _run(jumps: Tensor) -> Tensor:
    """Return the jumps before the first empty one, as keys of the merge (their running minimum)."""
    empty = (jumps <= 0).to(torch.int8)
    size = int(empty.argmax()) if bool(empty.any()) else jumps.numel()
    if size == 0:
        return jumps[:0]
    return torch.cummin(jumps[:size], 0)[0]


def _first_cuts(cumulated: Tensor, total: float, most: int) -> tuple[Tensor, Tensor, int]:
    """Return the (start, end) bins tried until the right end first stays in place, and how many cuts it had by then.

    Looks at ``most`` cuts from each side; returns -1 cuts if these were too few to tell.
    """
    bins = cumulated.numel()
    cut = torch.arange(1, most + 1, dtype=torch.float64, device=cumulated.device).mul_(1e-5)
    left = torch.searchsorted(cumulated, (cut * total).to(cumulated)).clamp_(max=bins - 1)
    left = torch.cat([torch.zeros_like(left[:1]), left])
    right = torch.searchsorted(cumulated, ((1.0 - cut) * total).to(cumulated), right=True).sub_(1)
    right = torch.cat([torch.full_like(right[:1], bins - 1), right.clamp_(min=0)])
    left_keys = _run(left.diff())
    right_keys = _run(-right.diff())
    if most <= bins and (left_keys.numel() == most or right_keys.numel() == most):
        return left, right, -1
    # Right first: a stable sort then lets it win ties
    order = torch.sort(torch.cat([right_keys, left_keys]), descending=True, stable=True)[1]
    from_left = order >= right_keys.numel()
    moves = from_left.cumsum(0)
    starts = left[moves]
    ends = right[torch.arange(1, moves.numel() + 1, device=moves.device) - moves]
    starts, ends = _until_crossing(starts, ends, from_left)
    return starts, ends, right_keys.numel()


def _until_crossing(starts: Tensor, ends: Tensor, from_left: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the path where the ends meet; the end that moved last stops at the other one."""
    crossed = (starts >= ends).to(torch.int8)
    if not bool(crossed.any()):
        return starts, ends
    size = int(crossed.argmax()) + 1
    met = torch.where(from_left, torch.minimum(starts, ends), starts)[:size]
    return met, torch.maximum(ends, starts)[:size] if not bool(from_left[size - 1]) else ends[:size]


def _later_cuts(cumulated: Tensor, total: float, cuts: int, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Return the (start, end) bins tried once only the right end moves: the bins below ``end`` it ever stops at.

    The end stops at a bin if, after some number of cuts beyond ``cuts``, what is kept reaches the bin's count but not
    its right neighbour's.
    """
    reached = cumulated[start:end]
    missed = cumulated[start + 1 : end + 1]
    # Few enough cuts to keep the neighbour, then up to three more: the limits are rounded to float32
    fewest = ((1.0 - missed.double() / total) * 1e5).floor_().clamp_(min=cuts + 1)
    stops = torch.zeros_like(missed, dtype=torch.bool)
    for more in range(3):
        limit = ((1.0 - (fewest + more) * 1e-5) * total).to(cumulated)
        stops |= (limit < missed) & (limit >= reached)
    ends = torch.nonzero(stops).view(-1).flip(0) + start
    return torch.full_like(ends, start), ends


def rounding_errors(histogram: Tensor, edges: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """Return the summed squared error of rounding counted values to whole numbers, for several scales at once.

    Args:
        histogram: counts, shape ``(bins,)``, or ``(rows, 1, bins)`` for several histograms.
        edges: the edges of the bins in units of one step of each scale, float64, shape ``(..., scales, bins + 1)``.
        lowest: smallest whole number of each scale, shape ``(scales, 1)``; what is below saturates.
        highest: largest whole number, same shape.

    Returns:
        Errors in squared steps times bins per step, shape ``(..., scales)``: multiply by step cubed over bin width.
    """
    counts = histogram.double()
    zero = torch.zeros_like(counts[..., :1])
    drops = torch.cat([zero, counts], -1) - torch.cat([counts, zero], -1)
    # The integral of the squared error up to u is (u - whole)^3 / 3 + whole / 12: continuous, also where rounding jumps
    whole = edges.round().clamp_(lowest, highest)
    off = edges - whole
    # A sum, not a product of matrices: it adds in the same order however many histograms there are
    return (off.pow(3).mul_(4.0).add_(whole)).mul_(drops).sum(-1) / 12.0


def expected_errors(histogram: Tensor, starts: Tensor, ends: Tensor, levels: int) -> Tensor:
    """Return the summed squared error, in squared bin widths, of dividing each range of bins into ``levels`` steps.

    Args:
        histogram: counts, shape ``(bins,)``, or ``(rows, 1, bins)`` for several histograms.
        starts: first bin of each range, shape ``(ranges,)``, or ``(rows, ranges)``.
        ends: last bin of each range, same shape.
        levels: how many steps a range has, each represented by its centre.
    """
    step = (ends - starts + 1).double().div_(levels)
    edges = torch.arange(histogram.shape[-1] + 1, dtype=torch.float64, device=histogram.device)
    units = (edges - starts.unsqueeze(-1)).div_(step.unsqueeze(-1)).sub_(0.5)
    lowest = torch.zeros([1, 1], dtype=torch.float64, device=histogram.device)
    return rounding_errors(histogram, units, lowest, lowest + (levels - 1)) * step.pow(3)


def _first_rise(histogram: Tensor, starts: Tensor, ends: Tensor, levels: int, best: float) -> tuple[int, float]:
    """Return the index of the first range whose error is above its predecessor's (``best`` before the first), or -1."""
    size = 8  # most searches stop within these
    done = 0
    while done < starts.numel():
        errors = expected_errors(histogram, starts[done : done + size], ends[done : done + size], levels)
        before = torch.cat([torch.full_like(errors[:1], best), errors[:-1]])
        rises = (errors > before).to(torch.int8)
        if bool(rises.any()):
            return done + int(rises.argmax()), best
        best = float(errors[-1])
        done += size
        size = 64
    return -1, best


def l2_bins(histogram: Tensor, levels: int) -> tuple[int, int]:
    """Return the first and last bin of the range chosen for a histogram.

    Args:
        histogram: float32 counts, shape ``(bins,)``, not all zero.
        levels: how many steps the range will be divided into.
    """
    bins = histogram.numel()
    total = float(histogram.sum())
    cumulated = histogram.cumsum(0)
    starts, ends, cuts = _first_cuts(cumulated, total, min(128, bins))
    if cuts < 0:
        starts, ends, cuts = _first_cuts(cumulated, total, bins + 1)
    rise, best = _first_rise(histogram, starts, ends, levels, float("inf"))
    start, end = 0, bins - 1
    if rise > 0:
        return int(starts[rise - 1]), int(ends[rise - 1])
    if starts.numel() > 0:
        start, end = int(starts[-1]), int(ends[-1])
    if start >= end:
        return start, end
    starts, ends = _later_cuts(cumulated, total, cuts, start, end)
    rise, best = _first_rise(histogram, starts, ends, levels, best)
    if rise < 0:
        return start, int(ends[-1]) if ends.numel() > 0 else end
    return start, int(ends[rise - 1]) if rise > 0 else end


def l2_range(histogram: Tensor, low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Return the range of values to quantize, for counts of ``low .. high``; 0-d tensors like the arguments."""
    if bool(low == high):
        return low, high
    start, end = l2_bins(histogram, levels)
    width = (high - low) / histogram.numel()
    return low + width * start, low + width * (end + 1)
