"""The spelling table: from what stands in a graph to the ops it may spell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch

from qfx.errors import ConfigError
from qfx.ops import Op, QParamClass
from qfx.spellings import aten, functions, modules
from qfx.spellings.spelling import CallSpelling, ModuleSpelling

_CALLS: dict[Any, list[CallSpelling]] = {}
_MODULES: dict[type, ModuleSpelling] = {}
_EMITTED: dict[tuple[Op, str], list[CallSpelling]] = {}


def _dialect(target: Any) -> str:
    if isinstance(target, str):
        return "method"
    return "aten" if type(target).__name__ == "OpOverload" else "function"


def register(spelling: CallSpelling | ModuleSpelling) -> None:
    """Add one spelling to the table.

    Several call spellings of one target are tried in order (``aten.convolution`` spells six ops); a module class has
    one.

    Raises:
        ConfigError: the class already has a spelling.
    """
    if isinstance(spelling, ModuleSpelling):
        if spelling.cls in _MODULES:
            raise ConfigError(
                f"{spelling.cls.__name__} already spells {_MODULES[spelling.cls].op}; a class has one spelling"
            )
        _MODULES[spelling.cls] = spelling
        return
    _CALLS.setdefault(spelling.target, []).append(spelling)
    _EMITTED.setdefault((spelling.op, _dialect(spelling.target)), []).append(spelling)


def calls(target: Any) -> list[CallSpelling]:
    """The spellings of a function, overload or method name; empty for a stranger."""
    return _CALLS.get(target, [])


def module_spelling(cls: type) -> ModuleSpelling | None:
    """The spelling of exactly this class; a subclass may compute something else."""
    return _MODULES.get(cls)


def registrations() -> int:
    """How many spellings there are; it grows when a user adds one, and what was worked out from the table is stale."""
    return len(_MODULES) + sum(map(len, _CALLS.values()))


def ops_of_modules(classes: Iterable[type]) -> tuple[Op, ...]:
    """The ops some module classes spell, once each, in order."""
    return tuple(dict.fromkeys(_MODULES[cls].op for cls in classes))


def spelling_of(op: Op, dialect: str) -> CallSpelling:
    """The first spelling of `op` in a dialect, for emission; functions stand in where a dialect has none.

    Args:
        op: the canonical op.
        dialect: ``"function"`` or ``"aten"``.

    Raises:
        KeyError: no function spells this op.
    """
    for key in (dialect, "function", "method"):
        for spelling in _EMITTED.get((op, key), ()):
            if not spelling.inplace:
                return spelling
    raise KeyError(f"no function spells {op}")


def targets() -> Iterator[Any]:
    """Every target and class with a spelling."""
    yield from _CALLS
    yield from _MODULES


def opaque(target: Any) -> Op:
    """The op of its own that an unknown class, function or method name becomes; one op a target."""
    return _opaque(target)


@cache
def _opaque(target: Any) -> Op:
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return Op(str(target), ("args*",), qparams=QParamClass.NEVER, opaque=True)
    name = target if isinstance(target, str) else getattr(target, "__qualname__", None) or str(target)
    plain = str(name).removeprefix("_VariableFunctionsClass.")  # where torch keeps its functions
    return Op(plain, ("args*",), qparams=QParamClass.NEVER, opaque=True)


for _call in (*functions.spellings(), *aten.spellings()):
    register(_call)
for _module in modules.spellings():
    register(_module)
