"""Dynamically quantized modules: floats in and out, int8 or half-float weights, inputs quantized in every call."""

from __future__ import annotations

from qfx.nn.quantized.dynamic.cell import GRUCell, LSTMCell, RNNCell, RNNCellBase
from qfx.nn.quantized.dynamic.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from qfx.nn.quantized.dynamic.linear import Linear
from qfx.nn.quantized.dynamic.packed import PackedParameter, pack_weight_bias
from qfx.nn.quantized.dynamic.rnn import GRU, LSTM, apply_permutation
from qfx.nn.quantized.dynamic.rnn_base import RNNBase

__all__ = [
    "GRU",
    "LSTM",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "PackedParameter",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "apply_permutation",
    "pack_weight_bias",
]
