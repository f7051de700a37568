"""Dynamically quantized linear layers on weights with blocks of zeros."""

from __future__ import annotations

from qfx.nn.sparse.quantized.dynamic.linear import Linear

__all__ = ["Linear"]
