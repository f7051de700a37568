"""What observers gathered, as values: they can be saved, loaded and merged, and solved for any scheme or bit width.

Merging is how calibration runs on several processes or machines become one:

- smallest and largest values merge exactly, in any order and grouping;
- moving averages merge to the mean weighted by batches, in any order and grouping (there is no newest batch among
  machines);
- histograms merge exactly where the ranges agree; where they differ, counts move to the common range as evenly spread
  inside their bins, so the grouping may matter by a fraction of a bin. Totals and ranges are exact always.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from qfx.errors import ObservationError
from qfx.observers.bins import rebin


@dataclass(frozen=True, eq=False)
class Statistics(ABC):
    """Base of all statistics: a range of values seen, in total or by channel.

    Attributes:
        min: smallest value, shape ``()``, or ``(channels,)`` where ``axis`` is given.
        max: largest value, same shape.
        axis: the channel dimension, ``None`` for one range.
    """

    min: Tensor
    max: Tensor
    axis: int | None = None

    kind: ClassVar[str]
    default_solver: ClassVar[str] = "min_max"

    @property
    def is_empty(self) -> bool:
        """Whether nothing was seen."""
        return self.min.numel() == 0 or (self.min.dim() == 0 and bool(self.min > self.max))

    def merge(self, other: Statistics) -> Self:
        """Return the statistics of both; see the module for what is exact.

        Raises:
            ObservationError: of another kind, axis, number of channels or setting.
        """
        if not isinstance(other, type(self)):
            raise ObservationError(
                f"cannot merge {self.kind} statistics with {other.kind} ones; calibrate with one kind"
            )
        if self.axis != other.axis:
            raise ObservationError(f"cannot merge statistics along axis {self.axis} with ones along {other.axis}")
        if other.is_empty:
            return self
        if self.is_empty:
            return other
        if self.min.shape != other.min.shape:
            raise ObservationError(
                f"cannot merge statistics of {self.min.numel()} channels with ones of {other.min.numel()}"
            )
        return self._merge(other)

    @abstractmethod
    def _merge(self, other: Any) -> Self: ...

    def state(self) -> dict[str, Any]:
        """Return plain tensors and numbers, for ``torch.save``; ``statistics_from_state`` reads them back."""
        return {"kind": self.kind, **{field.name: getattr(self, field.name) for field in fields(self)}}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        mine, theirs = self.state(), other.state()
        return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]


def _same(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


@dataclass(frozen=True, eq=False)
class MinMaxStatistics(Statistics):
    """The smallest and largest value ever seen."""

    kind = "min_max"

    def _merge(self, other: MinMaxStatistics) -> Self:
        return replace(self, min=torch.minimum(self.min, other.min), max=torch.maximum(self.max, other.max))


@dataclass(frozen=True, eq=False)
class MovingAverageStatistics(Statistics):
    """Moving averages of each batch's smallest and largest value.

    Attributes:
        batches: how many batches are in them, the weight in a merge.
    """

    batches: int = 0

    kind = "moving_average"
    default_solver = "moving_average"

    def _merge(self, other: MovingAverageStatistics) -> Self:
        share = other.batches / (self.batches + other.batches)
        return replace(
            self,
            min=torch.lerp(self.min, other.min, share),
            max=torch.lerp(self.max, other.max, share),
            batches=self.batches + other.batches,
        )


@dataclass(frozen=True, eq=False)
class HistogramStatistics(Statistics):
    """Counts of values in equal bins of ``min .. max``.

    Attributes:
        histogram: float32 counts, shape ``(bins,)``.
    """

    histogram: Tensor = None  # type: ignore[assignment]  # a default must follow those of the base

    kind = "histogram"
    default_solver = "histogram_l2"

    @property
    def count(self) -> float:
        """How many values were seen."""
        return float(self.histogram.sum(dtype=torch.float64))

    def _merge(self, other: HistogramStatistics) -> Self:
        low, high = torch.minimum(self.min, other.min), torch.maximum(self.max, other.max)
        bins = max(self.histogram.numel(), other.histogram.numel())
        histogram = torch.zeros(bins, dtype=torch.float64)
        for part in (self, other):
            histogram += rebin(part.histogram.double(), float(part.min), float(part.max), float(low), float(high), bins)
        return replace(self, min=low, max=high, histogram=histogram.to(self.histogram.dtype))


KINDS: Mapping[str, type[Statistics]] = {
    kind.kind: kind for kind in (MinMaxStatistics, MovingAverageStatistics, HistogramStatistics)
}
"""Statistics classes by the name they are saved under."""


def merge(first: Statistics, *others: Statistics) -> Statistics:
    """Return the statistics of all arguments.

    Raises:
        ObservationError: they are of different kinds, axes or numbers of channels.

    Example:
        >>> from qfx.observers import MinMaxObserver
        >>> replicas = [MinMaxObserver(), MinMaxObserver()]
        >>> _ = replicas[0](torch.tensor([-1.0, 0.0])), replicas[1](torch.tensor([0.0, 3.0]))
        >>> merge(*(observer.statistics() for observer in replicas)).max
        tensor(3.)
    """
    return reduce(lambda a, b: a.merge(b), others, first)


def statistics_from_state(state: Mapping[str, Any]) -> Statistics:
    """Return the statistics whose ``state()`` this is, for instance after ``torch.load(path, weights_only=True)``.

    Raises:
        ObservationError: the state is of no known kind.
    """
    values = dict(state)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise ObservationError(f"no statistics of kind {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](**values)
