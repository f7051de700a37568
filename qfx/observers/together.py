"""Many observers asked at once: what each would answer alone, from a few operations on stacked ranges.

A model has hundreds of observers, and each answer alone is a dozen operations on one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qfx.observers.base import UniformQuantizationObserverBase
from qfx.observers.histogram import HistogramObserver
from qfx.observers.l2_together import l2_ranges
from qfx.observers.minmax import MinMaxObserver, PerChannelMinMaxObserver
from qfx.qparams import range_to_qparams

NOTHING_SEEN = ("never ran", "saw only empty tensors", "saw no finite value")
"""The problems that leave an observer without a range."""

_BY_RANGE = (MinMaxObserver.calculate_qparams, PerChannelMinMaxObserver.calculate_qparams)


@dataclass(slots=True)
class Answer:
    """What an observer says.

    Attributes:
        problems: what makes its statistics doubtful, worst first.
        scale, zero_point: as ``calculate_qparams`` gives them, perhaps views of a tensor they share with others;
            None where it saw nothing (see `NOTHING_SEEN`), or NaN made the scale one.
    """

    problems: list[str]
    scale: Tensor | None = None
    zero_point: Tensor | None = None


@dataclass(slots=True)
class _Range:
    observer: Any
    low: Tensor
    high: Tensor


def answers_together(observers: Iterable[Any]) -> list[Answer]:
    """Ask every observer for its problems and its parameters: the very same as it gives alone.

    Args:
        observers: observers and fake-quantize modules, a user's own classes among them. Those of the min-max family
            and histograms are worked out together.
    """
    asked = list(observers)
    ranges = [r for r in map(_range, asked) if r is not None]
    sound = {id(r.observer): r for r, fine in zip(ranges, _finite(ranges), strict=True) if fine}
    solved = _solved(_chosen(sound.values()))
    return [_answer(observer, id(observer) in sound, solved.get(id(observer))) for observer in asked]


def _answer(observer: Any, sound: bool, solved: tuple[Tensor, Tensor] | None) -> Answer:
    # What a fake-quantize module has inside; asked of the table, as nn.Module searches long for what is not there
    inner = getattr(observer, "_modules", {}).get("activation_post_process", observer)
    problems = [] if sound or not hasattr(inner, "problems") else inner.problems()
    if problems and problems[0] in NOTHING_SEEN:
        return Answer(problems)
    scale, zero_point = solved if solved is not None else observer.calculate_qparams()
    if problems and not scale.isfinite().all():  # torch's kernel that observes and rounds takes NaN into its average
        return Answer(problems)
    return Answer(problems, scale, zero_point)


def _range(observer: Any) -> _Range | None:
    """The range of an observer that need not be asked for its problems, unless the range is not finite."""
    base = UniformQuantizationObserverBase
    if not isinstance(observer, base) or type(observer).problems is not base.problems:
        return None
    if observer._saw_empty or observer._saw_integers or observer._saw_infinity or observer._saw_nan:
        return None
    buffers = observer._buffers
    low, high = buffers.get("min_val"), buffers.get("max_val")
    return _Range(observer, low, high) if low is not None and high is not None and low.numel() else None


def _finite(ranges: Sequence[_Range]) -> list[bool]:
    """Whether each range is finite throughout: infinity or NaN in it would be one in the difference."""
    fine: dict[int, bool] = {}
    kinds: dict[Any, list[_Range]] = {}
    for each in ranges:
        kinds.setdefault((each.low.dtype, each.low.device), []).append(each)
    for members in kinds.values():
        single = [each for each in members if each.low.numel() == 1]
        if single:
            lows, highs = _joined(single)
            fine.update(zip(map(id, single), (lows - highs).isfinite().tolist(), strict=True))
    return [fine[id(each)] if id(each) in fine else bool((each.low - each.high).isfinite().all()) for each in ranges]


def _joined(ranges: Sequence[_Range]) -> tuple[Tensor, Tensor]:
    """The low ends one after the other, and the high ones."""
    lows, highs = [each.low for each in ranges], [each.high for each in ranges]
    if any(end.dim() for end in lows) or any(end.dim() for end in highs):
        return torch.cat([end.reshape(-1) for end in lows]), torch.cat([end.reshape(-1) for end in highs])
    return torch.stack(lows), torch.stack(highs)  # at a quarter of the price


def _chosen(ranges: Iterable[_Range]) -> list[_Range]:
    """The ranges to quantize: those seen, or what a histogram makes of them; none where a class has its own way."""
    chosen: list[_Range] = []
    histograms: dict[Any, list[_Range]] = {}
    for each in ranges:
        observer, kind = each.observer, type(each.observer)
        if kind._calculate_qparams is not UniformQuantizationObserverBase._calculate_qparams:
            continue
        if "calculate_qparams" in observer.__dict__ or observer._buffers["eps"].numel() != 1:
            continue
        if kind.calculate_qparams in _BY_RANGE:
            chosen.append(each)
        elif kind.calculate_qparams is HistogramObserver.calculate_qparams and each.low.device.type == "cpu":
            histograms.setdefault((observer.bins, observer.dst_nbins, each.low.dtype), []).append(each)
    for (_, levels, _), members in histograms.items():
        counts = torch.stack([each.observer.histogram for each in members])
        lows, highs = (torch.stack([getattr(each, end) for each in members]) for end in ("low", "high"))
        both = l2_ranges(counts, lows, highs, levels)
        chosen.extend(_Range(m.observer, *ends) for m, *ends in zip(members, *(e.unbind() for e in both), strict=True))
    return chosen


def _solved(ranges: Iterable[_Range]) -> dict[int, tuple[Tensor, Tensor]]:
    """Scales and zero points, by id of the observer; one call for all observers that want the same codes."""
    groups: dict[Any, list[_Range]] = {}
    for each in ranges:
        o = each.observer
        codes = (o.quant_min, o.quant_max, o._symmetric, o._float_zero_point, o._middle)
        groups.setdefault((codes, each.low.dtype, each.low.device), []).append(each)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for (codes, _, _), members in groups.items():
        sizes = [each.low.numel() for each in members]
        eps = torch.cat([each.observer._buffers["eps"] for each in members])
        if len(set(sizes)) > 1 or sizes[0] > 1:
            eps = eps.repeat_interleave(torch.tensor(sizes, device=eps.device))
        lows, highs = _joined(members)
        scales, zero_points = range_to_qparams(lows, highs, eps, *codes)
        pairs = zip(scales.split(sizes), zero_points.split(sizes), strict=True)
        found.update(zip((id(each.observer) for each in members), pairs, strict=True))
    return found
