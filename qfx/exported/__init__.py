"""Helpers for what ``torch.export`` gave: switch its mode, number its nodes."""

from __future__ import annotations

from qfx.exported.debug_handles import generate_numeric_debug_handle
from qfx.exported.modes import (
    allow_exported_model_train_eval,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)

__all__ = [
    "allow_exported_model_train_eval",
    "generate_numeric_debug_handle",
    "move_exported_model_to_eval",
    "move_exported_model_to_train",
]
