"""Forward hooks: what a module computes besides its forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

_TABLES = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")


def hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The forward hooks and pre-hooks of a module, in the order they run."""
    if not module._forward_pre_hooks and not module._forward_hooks:
        return []
    return [hook for table in _TABLES for hook in getattr(module, table).values()]


def hook_names(module: nn.Module) -> str:
    """The hooks of a module as a reader knows them: functions, and classes of callable objects."""
    return ", ".join(getattr(hook, "__name__", type(hook).__name__) for hook in hooks_of(module))


def share_hooks(source: nn.Module, target: nn.Module) -> None:
    """Give a module that stands for another its forward hooks; the hooks themselves are the same objects.

    Those torch puts on an exported module are left out: they check its inputs by what only that module has.
    """
    for table in _TABLES:
        theirs = {key: hook for key, hook in getattr(source, table).items() if not _of_torch_export(hook)}
        getattr(target, table).update(theirs)
        for flag in _FLAGS:
            if flag.startswith(table):
                getattr(target, flag).update({k: v for k, v in getattr(source, flag).items() if k in theirs})


def _of_torch_export(hook: Callable[..., Any]) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.export.")
