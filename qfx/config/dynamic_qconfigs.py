"""Ready configurations without calibration: dynamic quantization and weights only, under the names people know."""

from __future__ import annotations

import torch

from qfx.config.qconfig import QConfig
from qfx.observers import (
    PlaceholderObserver,
    default_dynamic_quant_observer,
    default_float_qparams_observer,
    default_float_qparams_observer_4bit,
    default_per_channel_weight_observer,
    default_placeholder_observer,
    default_weight_observer,
)

default_dynamic_qconfig = QConfig(activation=default_dynamic_quant_observer, weight=default_weight_observer)
"""Activations are quantized anew at each call; one scale per weight tensor."""

per_channel_dynamic_qconfig = QConfig(
    activation=default_dynamic_quant_observer, weight=default_per_channel_weight_observer
)
"""As ``default_dynamic_qconfig``, one scale per output channel of the weight."""

float16_dynamic_qconfig = QConfig(
    activation=PlaceholderObserver.with_args(dtype=torch.float16, is_dynamic=True),
    weight=PlaceholderObserver.with_args(dtype=torch.float16),
)
"""Weights are stored as float16; the product is float32."""

float_qparams_weight_only_qconfig = QConfig(
    activation=default_placeholder_observer, weight=default_float_qparams_observer
)
"""Embedding tables with 8-bit rows and float zero points; activations stay float."""

float_qparams_weight_only_qconfig_4bit = QConfig(
    activation=default_placeholder_observer, weight=default_float_qparams_observer_4bit
)
"""As ``float_qparams_weight_only_qconfig`` with 4-bit rows."""
