"""The largest value an observer has met, where it tells."""

from __future__ import annotations

import math
from typing import Any

from qfx.observers.histogram import HistogramObserver
from qfx.observers.minmax import MinMaxObserver

# Compared by what gathers: a subclass with a forward of its own, a moving average, remembers something else.
_REMEMBER = (MinMaxObserver.forward, HistogramObserver.forward)


def largest_seen(observer: Any) -> float | None:
    """The largest value an observer has met; None where it does not know, or has met none that is finite.

    Example:
        >>> import torch
        >>> observer = HistogramObserver(reduce_range=True)
        >>> _ = observer(torch.tensor([0.0, 20.0]))
        >>> largest_seen(observer)
        20.0
    """
    if getattr(type(observer), "forward", None) not in _REMEMBER:
        return None
    largest = float(observer.max_val)
    return largest if math.isfinite(largest) else None
