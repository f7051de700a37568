"""``fx.lstm_utils``, by its old names."""

from __future__ import annotations

from qfx.api.lstm_parts import observe_lstm_parts as _get_lstm_with_individually_observed_parts
from qfx.api.lstm_parts import reference_lstm_of_parts as _get_reference_quantized_lstm_module

__all__ = ["_get_lstm_with_individually_observed_parts", "_get_reference_quantized_lstm_module"]
