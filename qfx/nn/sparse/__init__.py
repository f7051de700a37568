"""Modules on sparse weights."""

from __future__ import annotations

from qfx.nn.sparse import quantized

__all__ = ["quantized"]
