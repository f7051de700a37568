"""Reference modules: float arithmetic on quantized weights, the meaning that every target's kernels have to match."""

from __future__ import annotations

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
from qfx.nn.quantized.reference.weight import ReferenceQuantizedModule

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Embedding",
    "EmbeddingBag",
    "Linear",
    "ReferenceQuantizedModule",
]
