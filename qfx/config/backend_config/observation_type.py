"""ObservationType: how a pattern's output is observed."""

from __future__ import annotations

from enum import Enum


class ObservationType(Enum):
    """How the observers of a pattern's output and input relate."""

    OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT = 0
    """The output has parameters of its own: convolution, linear, addition."""

    OUTPUT_SHARE_OBSERVER_WITH_INPUT = 1
    """Output and inputs have the same parameters, because values are only moved or dropped: cat, max pool, reshape."""

    INPUT_OUTPUT_NOT_OBSERVED = 2
    """Neither is observed: the result is no float tensor (``size``)."""
