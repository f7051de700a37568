"""Classes that observe and quantize themselves."""

from __future__ import annotations

from typing import Any

from torch import nn

from qfx.nn import quantizable as nnqa
from qfx.nn import quantized as nnq

_DEFAULT_CUSTOM_CONFIG_DICT: dict[str, dict[Any, Any]] = {
    "float_to_observed_custom_module_class": {
        nn.LSTM: nnqa.LSTM,
        nn.MultiheadAttention: nnqa.MultiheadAttention,
    },
    "observed_to_quantized_custom_module_class": {
        nnqa.LSTM: nnq.LSTM,
        nnqa.MultiheadAttention: nnq.MultiheadAttention,
    },
}


def get_default_custom_config_dict() -> dict[str, dict[Any, Any]]:
    """Return what ``prepare`` and ``convert`` take for a custom configuration where none is given.

    A copy; the keys are ``float_to_observed_custom_module_class`` and ``observed_to_quantized_custom_module_class``.
    """
    return {key: dict(table) for key, table in _DEFAULT_CUSTOM_CONFIG_DICT.items()}
