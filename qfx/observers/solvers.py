"""Solvers: from statistics to quantization parameters.

One calibration can be solved many times: for another scheme, another bit width, by another criterion. All solvers
work on whole tensors of candidates; none loops over bins or candidates.

======================  ================================================================================================
``min_max``             the whole range seen; any statistics
``moving_average``      the averaged range of ``MovingAverageStatistics``
``histogram_l2``        least expected squared error by the search of ``HistogramObserver`` (see ``l2_search``)
``percentile``          the range that keeps a share of the values (option ``percentile``, 99.99 by default)
``mse``                 least expected squared error of the exact quantizer, zero point rounding and codes included
``kl``                  least Kullback-Leibler divergence between counts and their quantized form, after Migacz,
                        "8-bit Inference with TensorRT" (2017)
======================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from qfx import dtypes
from qfx.errors import ConfigError, ObservationError
from qfx.observers.bins import rebin
from qfx.observers.l2_search import l2_range, rounding_errors
from qfx.observers.statistics import HistogramStatistics, MovingAverageStatistics, Statistics
from qfx.qparams import EPS, QParams, choose_qparams


@dataclass(frozen=True)
class Goal:
    """What a solver solves for: dtype, scheme and codes, as ``solve`` was given them."""

    dtype: torch.dtype
    qscheme: torch.qscheme
    quant_min: int | None
    quant_max: int | None
    reduce_range: bool
    eps: float

    @property
    def codes(self) -> tuple[int, int]:
        """The smallest and largest code."""
        return dtypes.resolve_code_range(self.dtype, self.quant_min, self.quant_max, self.reduce_range)

    def choose(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point for ranges of shape ``()`` or ``(n,)``."""
        return choose_qparams(
            low,
            high,
            quant_min=self.quant_min,
            quant_max=self.quant_max,
            qscheme=self.qscheme,
            dtype=self.dtype,
            reduce_range=self.reduce_range,
            eps=self.eps,
        )


Solver = Callable[..., tuple[Tensor, Tensor]]
"""``(statistics, goal, **options) -> (low, high)``: the range to quantize."""


def min_max(statistics: Statistics, goal: Goal) -> tuple[Tensor, Tensor]:
    """Return the whole range seen."""
    return statistics.min, statistics.max


def moving_average(statistics: Statistics, goal: Goal) -> tuple[Tensor, Tensor]:
    """Return the averaged range."""
    if not isinstance(statistics, MovingAverageStatistics):
        raise ObservationError(f"moving_average needs statistics of a moving average observer, got {statistics.kind}")
    return statistics.min, statistics.max


def _counts(statistics: Statistics, solver: str) -> HistogramStatistics:
    if not isinstance(statistics, HistogramStatistics):
        raise ObservationError(
            f"{solver} needs counts, got {statistics.kind} statistics; calibrate a HistogramObserver"
        )
    return statistics


def histogram_l2(statistics: Statistics, goal: Goal) -> tuple[Tensor, Tensor]:
    """Return the range ``HistogramObserver`` chooses."""
    counts = _counts(statistics, "histogram_l2")
    return l2_range(counts.histogram, counts.min, counts.max, 2 ** dtypes.bits(goal.dtype))


def percentile(statistics: Statistics, goal: Goal, percentile: float = 99.99) -> tuple[Tensor, Tensor]:
    """Return the range that keeps ``percentile`` percent of the values.

    Half of the others are cut off each end; all of them off one where the other is on the far side of zero, and the
    largest in magnitude where the scheme is symmetric.

    Raises:
        ConfigError: ``percentile`` is not in ``(0, 100]``.
    """
    if not 0 < percentile <= 100:
        raise ConfigError(f"percentile {percentile} is not in (0, 100]; 99.99 keeps all but one value in ten thousand")
    counts = _counts(statistics, "percentile")
    if bool(counts.min == counts.max):
        return counts.min, counts.max
    histogram, low, high = counts.histogram, float(counts.min), float(counts.max)
    cut = 1 - percentile / 100
    if dtypes.is_symmetric(goal.qscheme) and low < 0 < high:
        reach = max(-low, high)
        both = rebin(histogram.double(), low, high, -reach, reach, 2 * histogram.numel())
        magnitudes = both[histogram.numel() :] + both[: histogram.numel()].flip(0)
        bound = _quantile(magnitudes, 0.0, reach, 1 - cut)
        return counts.min.clamp(min=-bound), counts.max.clamp(max=bound)
    below, above = (0.0, cut) if low >= 0 else (cut, 0.0) if high <= 0 else (cut / 2, cut / 2)
    least, most = _quantile(histogram, low, high, below), _quantile(histogram, low, high, 1 - above)
    return counts.min.clamp(min=least), counts.max.clamp(max=most)


def _quantile(histogram: Tensor, low: float, high: float, share: float) -> float:
    """Return the value below which ``share`` of the counted values are, by linear interpolation inside its bin."""
    cumulated = histogram.cumsum(0, dtype=torch.float64)
    wanted = share * float(cumulated[-1])
    place = min(int(torch.searchsorted(cumulated, wanted)), histogram.numel() - 1)
    inside = float(histogram[place])
    part = (wanted - float(cumulated[place]) + inside) / inside if inside > 0 else 0.0
    return low + (high - low) / histogram.numel() * (place + part)


def mse(statistics: Statistics, goal: Goal) -> tuple[Tensor, Tensor]:
    """Return a range of least expected squared error, counting values as evenly spread inside their bins.

    Each end in turn takes the best of 33 factors, in three rounds of ever finer factors; never worse than ``min_max``.
    """
    counts = _counts(statistics, "mse")
    if bool(counts.min == counts.max):
        return counts.min, counts.max
    low, high = counts.min.double().clamp(max=0.0), counts.max.double().clamp(min=0.0)
    if dtypes.is_symmetric(goal.qscheme):
        high = torch.maximum(-low, high)
        low = -high
    # From 1 down to 1/1024 (outliers), then around the best, then closer
    for octaves, shift in ((10.0, -10.0), (0.625, -0.3125), (0.04, -0.02)):
        factors = torch.exp2(torch.linspace(0, 1, 33, dtype=torch.float64) * octaves + shift)
        factors[32 if octaves == 10.0 else 16] = 1.0
        if dtypes.is_symmetric(goal.qscheme):
            high = high * factors[_best(counts, goal, -high * factors, high * factors)]
            low = -high
            continue
        high = high * factors[_best(counts, goal, low.expand(33), high * factors)] if bool(high > 0) else high
        low = low * factors[_best(counts, goal, low * factors, high.expand(33))] if bool(low < 0) else low
    return low.to(counts.min), high.to(counts.max)


def _best(counts: HistogramStatistics, goal: Goal, lows: Tensor, highs: Tensor) -> int:
    scale, zero_point = (t.double().unsqueeze(1) for t in goal.choose(lows.float(), highs.float()))
    low, high = float(counts.min), float(counts.max)
    bins = counts.histogram.numel()
    edges = low + torch.arange(bins + 1, dtype=torch.float64) * ((high - low) / bins)
    least, most = goal.codes
    errors = rounding_errors(counts.histogram, edges / scale, least - zero_point, most - zero_point)
    return int((errors * scale.squeeze(1).pow(3)).argmin())


def kl(statistics: Statistics, goal: Goal, candidates: int = 128) -> tuple[Tensor, Tensor]:
    """Return the range whose quantized counts diverge least from the counts.

    The candidates cut between none and 5 % of the values, half off each end (all off one where the other is on the far
    side of zero, the same distance off both where the scheme is symmetric), and keep at least one bin a code.
    """
    counts = _counts(statistics, "kl")
    if bool(counts.min == counts.max):
        return counts.min, counts.max
    low, high, histogram = float(counts.min), float(counts.max), counts.histogram.double()
    bins = histogram.numel()
    levels = goal.codes[1] - goal.codes[0] + 1
    if dtypes.is_symmetric(goal.qscheme):
        reach = max(-low, high)
        histogram = rebin(histogram, low, high, -reach, reach, bins)
        low, high = -reach, reach
    histogram = _without_zeros(histogram, low, high)
    cuts = torch.cat([torch.zeros(1), torch.logspace(-6, -1.3, candidates - 1)]).double()
    cumulated = histogram.cumsum(0)
    below = 0.0 if low >= 0 else 1.0 if high <= 0 else 0.5
    starts = torch.searchsorted(cumulated, cuts * below * cumulated[-1], right=True).clamp(max=bins - 1)
    ends = torch.searchsorted(cumulated, (1 - cuts * (1 - below)) * cumulated[-1]).clamp(max=bins - 1)
    starts[0], ends[0] = 0, bins - 1
    if dtypes.is_symmetric(goal.qscheme):
        starts = torch.minimum(starts, bins - 1 - ends)
        ends = bins - 1 - starts
    wide = ends - starts + 1 >= min(levels, bins)
    starts, ends = starts[wide], ends[wide]
    best = int(_divergences(histogram, starts, ends, levels).argmin())
    width = (high - low) / bins
    least, most = low + width * int(starts[best]), low + width * int(ends[best] + 1)
    return counts.min.clamp(min=least), counts.max.clamp(max=most)


def _without_zeros(histogram: Tensor, low: float, high: float) -> Tensor:
    """Return the counts with as many zeros as there are values in the bins beside: what a relu makes costs no error."""
    if not low <= 0 <= high:
        return histogram
    last = histogram.numel() - 1
    place = min(int(-low / (high - low) * (last + 1)), last)
    beside = histogram[[1 if place == 0 else place - 1, last - 1 if place == last else place + 1]].max()
    return histogram.index_fill(0, torch.tensor([place]), float(torch.minimum(histogram[place], beside)))


def _divergences(histogram: Tensor, starts: Tensor, ends: Tensor, levels: int) -> Tensor:
    """Return the divergence of each range of bins: counts clipped into it against their average over each level."""
    bins = torch.arange(histogram.numel())
    first, last = starts.unsqueeze(1), ends.unsqueeze(1)
    inside = (bins >= first) & (bins <= last)
    kept = histogram * inside
    cumulated = torch.cat([torch.zeros(1, dtype=histogram.dtype), histogram.cumsum(0)])
    clipped = kept.scatter_add(1, first, cumulated[first]).scatter_add(1, last, cumulated[-1] - cumulated[last + 1])
    level = ((bins - first) * levels // (last - first + 1)).clamp(0, levels - 1)
    zeros = torch.zeros(starts.numel(), levels, dtype=histogram.dtype)
    sums = zeros.scatter_add(1, level, kept)
    filled = zeros.scatter_add(1, level, (kept > 0).to(histogram.dtype))
    spread = torch.where(kept > 0, (sums / filled.clamp(min=1)).gather(1, level), 0.0)
    p = clipped / clipped.sum(1, keepdim=True)
    # an empty bin that clipping filled has no quantized counts; a small one stands for "none" and costs the range
    # dearly
    q = (spread / spread.sum(1, keepdim=True)).clamp(min=1e-12)
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(1)


SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {
        "min_max": min_max,
        "moving_average": moving_average,
        "histogram_l2": histogram_l2,
        "percentile": percentile,
        "mse": mse,
        "kl": kl,
    }
)
"""The solvers by name."""


def solve(
    statistics: Statistics,
    solver: str | Solver | None = None,
    *,
    dtype: torch.dtype = torch.quint8,
    qscheme: torch.qscheme | None = None,
    quant_min: int | None = None,
    quant_max: int | None = None,
    reduce_range: bool = False,
    eps: float = EPS,
    **options: Any,
) -> QParams:
    """Choose quantization parameters for what an observer saw.

    Args:
        statistics: of any observer, or merged from several.
        solver: a name in ``SOLVERS`` or a function ``(statistics, goal, **options) -> (low, high)``; by default the one
            the statistics' own observer uses.
        dtype: the dtype to quantize to, ``torch.quint8`` by default.
        qscheme: affine by default, per channel where the statistics are.
        quant_min, quant_max, reduce_range, eps: as for observers.
        options: passed to the solver, e.g. ``percentile=99.9``.

    Raises:
        ConfigError: no such solver, a scheme that does not fit the statistics, or codes that do not fit the dtype.
        ObservationError: the statistics are empty, not finite, or not of the kind the solver needs.

    Example:
        >>> from qfx.observers import HistogramObserver
        >>> observer = HistogramObserver()
        >>> _ = observer(torch.linspace(-1, 1, 1001))
        >>> found = solve(observer.statistics(), "percentile", dtype=torch.int8, percentile=99.9)
        >>> bool(found.scale <= 2 / 255)
        True
    """
    if qscheme is None:
        qscheme = torch.per_tensor_affine if statistics.axis is None else torch.per_channel_affine
    if dtypes.is_per_channel(qscheme) != (statistics.axis is not None):
        raise ConfigError(
            f"{qscheme} does not fit statistics with axis {statistics.axis}; choose a scheme of that kind"
        )
    _check_usable(statistics)
    goal = Goal(dtype, qscheme, quant_min, quant_max, reduce_range, eps)
    scale, zero_point = goal.choose(*_function(solver or statistics.default_solver)(statistics, goal, **options))
    low, high = goal.codes
    return QParams(scale, zero_point, statistics.axis, dtype, low, high, qscheme)


def _function(solver: str | Solver) -> Solver:
    if not isinstance(solver, str):
        return solver
    if solver not in SOLVERS:
        raise ConfigError(f"no solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[solver]


def _check_usable(statistics: Statistics) -> None:
    if statistics.is_empty:
        raise ObservationError(
            "the observer saw nothing, so there is no range to solve for; run the model on data first"
        )
    if not bool(statistics.min.isfinite().all() and statistics.max.isfinite().all()):
        raise ObservationError("the observer saw NaN or infinity; find the layer that makes them and calibrate again")
