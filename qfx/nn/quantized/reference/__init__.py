"""Reference modules: float arithmetic on quantized weights, the meaning that every target's kernels have to match."""

from __future__ import annotations

from qfx.nn.quantized.reference.cell import GRUCell, LSTMCell, RNNCell, RNNCellBase
from qfx.nn.quantized.reference.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from qfx.nn.quantized.reference.embedding import Embedding, EmbeddingBag
from qfx.nn.quantized.reference.linear import Linear
from qfx.nn.quantized.reference.rnn import GRU, LSTM, RNNBase
from qfx.nn.quantized.reference.weight import ReferenceQuantizedModule
from qfx.nn.quantized.reference.weights import ReferenceWeights, get_quantized_weight

__all__ = [
    "GRU",
    "LSTM",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Embedding",
    "EmbeddingBag",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "ReferenceQuantizedModule",
    "ReferenceWeights",
    "get_quantized_weight",
]
