"""Which calls write to memory that is there already, and to whose."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

if TYPE_CHECKING:
    from qfx.graph.view import GraphView

# Functions of the operator module that write; others of its names end in an underscore for Python's sake (``is_``).
_OPERATORS = frozenset(
    getattr(operator, name)
    for name in (
        *("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
        *("iand", "ior", "ixor", "iconcat", "ilshift", "irshift"),
    )
)


def says_it_writes(node: Node) -> bool:
    """Whether an unknown call says that it writes.

    By a trailing underscore (torch's convention for methods and functions), ``inplace=True``, ``out=``, a mutable
    schema, or because the operator is one that writes.
    """
    target: Any = node.target
    if node.op not in ("call_function", "call_method"):
        return False
    if isinstance(target, torch._ops.OpOverload):
        return bool(target._schema.is_mutable)
    if node.kwargs.get("inplace") is True or node.kwargs.get("out") is not None:
        return True
    if node.op == "call_method":
        return _underscored(str(target))
    if getattr(target, "__module__", "") == "_operator":
        return target in _OPERATORS
    if _underscored(getattr(target, "__name__", "")):
        return True
    position = _inplace_position(target)
    return position is not None and position < len(node.args) and node.args[position] is True


def written_by(node: Node) -> Iterator[Node]:
    """The nodes whose memory a writing call writes to: its first argument, and ``out``."""
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("self"))
    for value in (first, node.kwargs.get("out")):
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Node):
                yield item


def _underscored(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


@lru_cache(maxsize=1024)
def _inplace_position(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built-in functions have none
        return None
    return names.index("inplace") if "inplace" in names else None


# Of the ops that only move data, those whose result has memory of its own.
_COPIES = frozenset({"clone", "repeat", "repeat_interleave", "flip", "roll", "tile"})
_VIEWS = frozenset({"T", "mT", "H", "mH", "data", "real", "imag"})


def may_share_memory(view: GraphView, node: Node) -> bool:
    """Whether what a node returns may lie in the memory of its inputs: views, in-place calls, and unknown calls."""
    reading = view.read(node)
    op = reading.op
    if op.name == "getattr":
        return reading.attrs["name"] in _VIEWS
    if op.opaque and node.op == "call_module":
        # What torch's layers compute is new; a module kept whole may do as it likes.
        return reading.mutates or not type(view.module(str(node.target))).__module__.startswith("torch.nn.")
    return op.opaque or reading.mutates or op.name == "to" or (op.recomputable and op.name not in _COPIES)
