"""Observers: modules that watch tensors during calibration, and the solvers that turn what they saw into scales.

An observer has two halves. *Statistics* are gathered batch by batch and are a value (``observer.statistics()``) that
can be saved, loaded and merged. A *solver* turns them into ``QParams`` (``solve(statistics, "mse", dtype=...)``), so
one calibration can be solved again for another scheme or bit width.
"""

from __future__ import annotations

from qfx.observers.affine import AffineQuantizedObserverBase
from qfx.observers.base import ObserverBase, UniformQuantizationObserverBase
from qfx.observers.defaults import (
    default_affine_fixed_qparams_observer,
    default_debug_observer,
    default_dynamic_quant_observer,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
    default_float_qparams_observer,
    default_float_qparams_observer_4bit,
    default_histogram_observer,
    default_observer,
    default_per_channel_weight_observer,
    default_placeholder_observer,
    default_reuse_input_observer,
    default_symmetric_fixed_qparams_observer,
    default_weight_observer,
    per_channel_weight_observer_range_neg_127_to_127,
    weight_observer_range_neg_127_to_127,
)
from qfx.observers.factory import ObserverFactory, with_args, with_callable_args
from qfx.observers.granularity import (
    Granularity,
    MappingType,
    PerAxis,
    PerBlock,
    PerGroup,
    PerRow,
    PerTensor,
    PerToken,
    TorchAODType,
    ZeroPointDomain,
    get_block_size,
)
from qfx.observers.histogram import HistogramObserver
from qfx.observers.minmax import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from qfx.observers.passive import (
    FixedQParamsObserver,
    NoopObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
)
from qfx.observers.solvers import SOLVERS, Goal, solve
from qfx.observers.state import get_observer_state_dict, load_observer_state_dict
from qfx.observers.statistics import (
    HistogramStatistics,
    MinMaxStatistics,
    MovingAverageStatistics,
    Statistics,
    merge,
    statistics_from_state,
)

__all__ = [
    "SOLVERS",
    "AffineQuantizedObserverBase",
    "FixedQParamsObserver",
    "Goal",
    "Granularity",
    "HistogramObserver",
    "HistogramStatistics",
    "MappingType",
    "MinMaxObserver",
    "MinMaxStatistics",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "MovingAverageStatistics",
    "NoopObserver",
    "ObserverBase",
    "ObserverFactory",
    "PerAxis",
    "PerBlock",
    "PerChannelMinMaxObserver",
    "PerGroup",
    "PerRow",
    "PerTensor",
    "PerToken",
    "PlaceholderObserver",
    "RecordingObserver",
    "ReuseInputObserver",
    "Statistics",
    "TorchAODType",
    "UniformQuantizationObserverBase",
    "ZeroPointDomain",
    "default_affine_fixed_qparams_observer",
    "default_debug_observer",
    "default_dynamic_quant_observer",
    "default_fixed_qparams_range_0to1_observer",
    "default_fixed_qparams_range_neg1to1_observer",
    "default_float_qparams_observer",
    "default_float_qparams_observer_4bit",
    "default_histogram_observer",
    "default_observer",
    "default_per_channel_weight_observer",
    "default_placeholder_observer",
    "default_reuse_input_observer",
    "default_symmetric_fixed_qparams_observer",
    "default_weight_observer",
    "get_block_size",
    "get_observer_state_dict",
    "load_observer_state_dict",
    "merge",
    "per_channel_weight_observer_range_neg_127_to_127",
    "solve",
    "statistics_from_state",
    "weight_observer_range_neg_127_to_127",
    "with_args",
    "with_callable_args",
]
