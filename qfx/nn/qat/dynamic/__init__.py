"""Modules for training a model that will be quantized dynamically."""

from __future__ import annotations

from qfx.nn.qat.dynamic.linear import Linear

__all__ = ["Linear"]
