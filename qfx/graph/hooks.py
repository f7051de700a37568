"""Forward hooks: what a module computes besides its forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_TABLES = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")


def hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The forward hooks and pre-hooks of a module, in the order they run."""
    return [hook for table in _TABLES for hook in getattr(module, table).values()]


def hook_names(module: nn.Module) -> str:
    """The hooks of a module as a reader knows them: functions, and classes of callable objects."""
    return ", ".join(getattr(hook, "__name__", type(hook).__name__) for hook in hooks_of(module))


def share_hooks(source: nn.Module, target: nn.Module) -> None:
    """Give a module that stands for another its forward hooks; the hooks themselves are the same objects."""
    for table in (*_TABLES, *_FLAGS):
        getattr(target, table).update(getattr(source, table))
