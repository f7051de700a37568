"""Quantized linear layers on weights with blocks of zeros, which their kernels skip."""

from __future__ import annotations

from qfx.nn.sparse.quantized import dynamic
from qfx.nn.sparse.quantized.linear import Linear, LinearPackedParams
from qfx.nn.sparse.quantized.utils import LinearBlockSparsePattern

__all__ = ["Linear", "LinearBlockSparsePattern", "LinearPackedParams", "dynamic"]
