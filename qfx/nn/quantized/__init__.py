"""Quantized modules: quantized tensors in and out, int8 weights packed for one of torch's engines."""

from __future__ import annotations

from torch.nn import MaxPool2d

from qfx.nn.quantized import functional, reference
from qfx.nn.quantized.activation import ELU, Hardswish, LeakyReLU, PReLU, ReLU6, Sigmoid, Softmax
from qfx.nn.quantized.batchnorm import BatchNorm2d, BatchNorm3d
from qfx.nn.quantized.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from qfx.nn.quantized.custom import LSTM, MultiheadAttention
from qfx.nn.quantized.dropout import Dropout
from qfx.nn.quantized.embedding import Embedding, EmbeddingBag, EmbeddingPackedParams
from qfx.nn.quantized.functional_modules import FloatFunctional, FXFloatFunctional, QFunctional
from qfx.nn.quantized.linear import Linear, LinearPackedParams
from qfx.nn.quantized.module import WeightedQuantizedModule
from qfx.nn.quantized.normalization import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm
from qfx.nn.quantized.quantize import DeQuantize, Quantize

__all__ = [
    "ELU",
    "LSTM",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeQuantize",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingPackedParams",
    "FXFloatFunctional",
    "FloatFunctional",
    "GroupNorm",
    "Hardswish",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearPackedParams",
    "MaxPool2d",
    "MultiheadAttention",
    "PReLU",
    "QFunctional",
    "Quantize",
    "ReLU6",
    "Sigmoid",
    "Softmax",
    "WeightedQuantizedModule",
    "functional",
    "reference",
]
