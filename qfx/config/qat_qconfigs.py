"""Ready configurations for quantization-aware training, under the names people know."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.config.default_qconfigs import check_backend
from qfx.config.qconfig import QConfig
from qfx.fake_quantize import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    default_dynamic_fake_quant,
    default_embedding_fake_quant,
    default_embedding_fake_quant_4bit,
    default_fake_quant,
    default_fused_act_fake_quant,
    default_fused_per_channel_wt_fake_quant,
    default_fused_wt_fake_quant,
    default_per_channel_weight_fake_quant,
    default_weight_fake_quant,
    fused_per_channel_wt_fake_quant_range_neg_127_to_127,
    fused_wt_fake_quant_range_neg_127_to_127,
)
from qfx.observers import MovingAverageMinMaxObserver, NoopObserver

default_qat_qconfig = QConfig(activation=default_fake_quant, weight=default_weight_fake_quant)
"""Moving averages, 7-bit activations, one scale per weight tensor."""

default_qat_qconfig_v2 = QConfig(activation=default_fused_act_fake_quant, weight=default_fused_wt_fake_quant)
"""As ``default_qat_qconfig`` with 8-bit activations, by the fused kernel."""

default_dynamic_qat_qconfig = QConfig(activation=default_dynamic_fake_quant, weight=default_weight_fake_quant)
"""Activations whose range is chosen anew for each input."""

default_weight_only_qconfig = QConfig(activation=nn.Identity, weight=default_weight_fake_quant)
"""Weights are rounded, activations are not."""

default_activation_only_qconfig = QConfig(activation=default_fake_quant, weight=nn.Identity)
"""Activations are rounded, weights are not."""

_unobserved = NoopObserver.with_args(dtype=torch.float32)
default_embedding_qat_qconfig = QConfig(activation=_unobserved, weight=default_embedding_fake_quant)
"""Embedding tables with 8-bit rows and float zero points."""

default_embedding_qat_qconfig_4bit = QConfig(activation=_unobserved, weight=default_embedding_fake_quant_4bit)
"""Embedding tables with 4-bit rows and float zero points."""

# XNNPACK's kernels take signed symmetric codes and scales that are not too small.
_xnnpack_activation = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver,
    quant_min=-128,
    quant_max=127,
    dtype=torch.qint8,
    reduce_range=False,
    eps=2**-12,
)
default_symmetric_qnnpack_qat_qconfig = QConfig(
    activation=_xnnpack_activation, weight=fused_wt_fake_quant_range_neg_127_to_127
)
"""Signed activations, weights in -127..127: what XNNPACK takes."""

default_per_channel_symmetric_qnnpack_qat_qconfig = QConfig(
    activation=_xnnpack_activation, weight=fused_per_channel_wt_fake_quant_range_neg_127_to_127
)
"""As ``default_symmetric_qnnpack_qat_qconfig``, one scale per output channel of the weight."""

# Backend -> (arguments of activations, whether weights have one scale a channel).
_BACKENDS: dict[str, tuple[dict[str, bool], bool]] = {
    "fbgemm": ({"reduce_range": True}, True),
    "x86": ({"reduce_range": True}, True),
    "qnnpack": ({"reduce_range": False}, False),
    "onednn": ({}, True),
}
_KINDS: dict[int, tuple[Any, Any, Any]] = {
    0: (FakeQuantize, default_per_channel_weight_fake_quant, default_weight_fake_quant),
    1: (FusedMovingAvgObsFakeQuantize, default_fused_per_channel_wt_fake_quant, default_fused_wt_fake_quant),
}


def get_default_qat_qconfig(backend: str = "x86", version: int = 1) -> QConfig:
    """Return the configuration for quantization-aware training that suits a backend.

    Args:
        backend: ``"x86"`` (default), ``"fbgemm"``, ``"qnnpack"`` or ``"onednn"``.
        version: 1 (default) for the fused kernel, 0 for ``FakeQuantize``.

    Returns:
        A new ``QConfig``; 7-bit activations for x86 and fbgemm, 8-bit ones for the others; weights per channel but for
        qnnpack.

    Raises:
        ConfigError: another backend or version.

    Example:
        >>> get_default_qat_qconfig("qnnpack").activation().quant_max
        255
    """
    check_backend(backend, version, tuple(_KINDS), "get_default_qat_qconfig")
    kind, per_channel, per_tensor = _KINDS[version]
    arguments, channels = _BACKENDS[backend]
    activation = kind.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, **arguments)
    return QConfig(activation=activation, weight=per_channel if channels else per_tensor)
