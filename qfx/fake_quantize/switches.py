"""Switching all fake-quantize modules of a model: ``model.apply(disable_observer)``."""

from __future__ import annotations

from typing import Any

from torch import nn

from qfx.fake_quantize.base import FakeQuantizeBase

_NAMES = ("FakeQuantize", "FixedQParamsFakeQuantize", "FusedMovingAvgObsFakeQuantize")


def _is_one(module: nn.Module) -> bool:
    # A scripted module remembers the class it was made of by name only.
    return isinstance(module, FakeQuantizeBase) or getattr(module, "original_name", None) in _NAMES


def _call(module: Any, name: str) -> None:
    if _is_one(module):
        getattr(module, name)()


def enable_fake_quant(mod: nn.Module) -> None:
    """Let a fake-quantize module round; nothing for any other module. Use: ``model.apply(enable_fake_quant)``."""
    _call(mod, "enable_fake_quant")


def disable_fake_quant(mod: nn.Module) -> None:
    """Let a fake-quantize module return its input; nothing for any other module."""
    _call(mod, "disable_fake_quant")


def enable_observer(mod: nn.Module) -> None:
    """Let a fake-quantize module gather statistics; nothing for any other module."""
    _call(mod, "enable_observer")


def disable_observer(mod: nn.Module) -> None:
    """Freeze scale and zero point of a fake-quantize module; nothing for any other module."""
    _call(mod, "disable_observer")
