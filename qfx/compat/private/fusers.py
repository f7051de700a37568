"""Turning the arguments of fuser methods around (``fuser_method_mappings``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _reverse2(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(is_qat, x, y)`` as a function of ``(is_qat, y, x)``."""
    return lambda is_qat, x, y: f(is_qat, y, x)


def _reverse3(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f(is_qat, x, y, z)`` as a function of ``(is_qat, z, (y, x))``."""

    def reversed3(is_qat: bool, x: Any, w: Any) -> Any:
        y, z = w
        return f(is_qat, z, y, x)

    return reversed3
