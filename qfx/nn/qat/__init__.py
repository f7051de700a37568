"""Modules for quantization-aware training: float modules whose weight is rounded in every forward."""

from __future__ import annotations

from qfx.nn.qat import dynamic
from qfx.nn.qat.conv import Conv1d, Conv2d, Conv3d
from qfx.nn.qat.embedding import Embedding, EmbeddingBag
from qfx.nn.qat.linear import Linear

__all__ = ["Conv1d", "Conv2d", "Conv3d", "Embedding", "EmbeddingBag", "Linear", "dynamic"]
