"""Ready configurations, under the names people know; here the ones for static quantization after training."""

from __future__ import annotations

import torch

from qfx.config.qconfig import QConfig
from qfx.errors import ConfigError
from qfx.observers import (
    HistogramObserver,
    MinMaxObserver,
    NoopObserver,
    PlaceholderObserver,
    default_debug_observer,
    default_observer,
    default_per_channel_weight_observer,
    default_reuse_input_observer,
    default_weight_observer,
    per_channel_weight_observer_range_neg_127_to_127,
    weight_observer_range_neg_127_to_127,
)

default_qconfig = QConfig(activation=default_observer, weight=default_weight_observer)
"""Minimum and maximum, 7-bit activations, one scale per weight tensor."""

default_per_channel_qconfig = QConfig(activation=default_observer, weight=default_per_channel_weight_observer)
"""Minimum and maximum, 7-bit activations, one scale per output channel of the weight."""

default_debug_qconfig = QConfig(activation=default_debug_observer, weight=default_weight_observer)
"""Keeps every activation it sees."""

default_reuse_input_qconfig = QConfig(activation=default_reuse_input_observer, weight=NoopObserver)
"""The output has the parameters of the input; for operators that only move data."""

default_quint8_weight_qconfig = QConfig(activation=HistogramObserver, weight=MinMaxObserver)
"""Weights as ``torch.quint8``, which is what the PReLU kernel takes."""

float16_static_qconfig = QConfig(
    activation=PlaceholderObserver.with_args(dtype=torch.float16),
    weight=PlaceholderObserver.with_args(dtype=torch.float16),
)
"""Everything rounded to float16; needs no calibration."""

fp32_placeholder_qconfig = QConfig(
    activation=PlaceholderObserver.with_args(dtype=torch.float32),
    weight=PlaceholderObserver.with_args(dtype=torch.float32),
)
"""Everything stays float32, said with observers."""

quint8_placeholder_qconfig = QConfig(activation=PlaceholderObserver.with_args(dtype=torch.quint8), weight=None)
"""Activations that are ``torch.quint8`` already; for operators without a weight."""

# XNNPACK's kernels take signed symmetric codes and scales that are not too small.
_qnnpack_symmetric_activation = HistogramObserver.with_args(dtype=torch.qint8, reduce_range=False, eps=2**-12)

default_symmetric_qnnpack_qconfig = QConfig(
    activation=_qnnpack_symmetric_activation, weight=weight_observer_range_neg_127_to_127
)
"""Signed activations, weights in -127..127: what XNNPACK takes."""

default_per_channel_symmetric_qnnpack_qconfig = QConfig(
    activation=_qnnpack_symmetric_activation, weight=per_channel_weight_observer_range_neg_127_to_127
)
"""As ``default_symmetric_qnnpack_qconfig``, one scale per output channel of the weight."""

# Backend -> (7-bit activations?, observer of weights). fbgemm adds pairs of products in 16 bits: 8 by 8 bits overflow.
_BACKENDS = {
    "fbgemm": (True, default_per_channel_weight_observer),
    "x86": (True, default_per_channel_weight_observer),
    "qnnpack": (False, default_weight_observer),
    "onednn": (False, default_per_channel_weight_observer),
}


def check_backend(
    backend: str, version: int, versions: tuple[int, ...] = (0,), asked: str = "get_default_qconfig"
) -> None:
    """Raise ConfigError unless there are defaults for this backend in this version."""
    if backend not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise ConfigError(
            f"backend: {backend} not supported. backend must be one of {known}: others have no default configuration"
        )
    if version not in versions:
        known = " or ".join(map(str, versions))
        raise ConfigError(f"Version number: {version} in {asked} is not supported. Version number must be {known}")


def get_default_qconfig(backend: str = "x86", version: int = 0) -> QConfig:
    """Return the configuration that suits a backend: histogram activations, minimum and maximum of weights.

    Args:
        backend: ``"x86"`` (default), ``"fbgemm"``, ``"qnnpack"`` or ``"onednn"``.
        version: 0 is the only one.

    Returns:
        A new ``QConfig``; 7-bit activations for x86 and fbgemm, 8-bit ones for the others; weights per channel but for
        qnnpack.

    Raises:
        ConfigError: another backend or version.

    Example:
        >>> get_default_qconfig("qnnpack").activation().quant_max
        255
    """
    check_backend(backend, version)
    reduce_range, weight = _BACKENDS[backend]
    return QConfig(activation=HistogramObserver.with_args(reduce_range=reduce_range), weight=weight)
