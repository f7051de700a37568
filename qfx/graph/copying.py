"""Copying modules and graph modules: everything that could change, and nothing else.

``copy.deepcopy`` spends most of its time on what cannot change (sizes, names, functions). Layers of torch and of ours
keep nothing but tensors, submodules and such values, so for them a copy of the tables and the tensors is a deep copy.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

_PLAIN_NAMESPACES = ("torch.nn.modules.", "qfx.nn.intrinsic.fused", "qfx.observers.")
_TABLES = ("_parameters", "_buffers", "_modules")
_ATOMS = frozenset(
    {int, float, str, bool, type(None), torch.dtype, torch.qscheme, torch.device, torch.memory_format, type}
)


def copied(gm: GraphModule) -> GraphModule:
    """A deep copy that shares nothing with `gm`.

    torch 2.13 warns about its own pytree classes when an exported module is copied; users cannot act on that, so this
    one message is kept from them for the length of the copy.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        return copy.deepcopy(gm)


def copied_module(module: nn.Module, memo: dict[int, Any]) -> Any:
    """A deep copy of a module; `memo` keeps aliases (tied weights, a module under two names) aliases."""
    known = memo.get(id(module))
    if known is not None:
        return known
    kind = type(module)
    plain = kind is nn.Module or kind.__module__.startswith(_PLAIN_NAMESPACES)
    if not plain or "__deepcopy__" in kind.__dict__:
        for part in module.modules():
            for value in part.__dict__.values():
                if isinstance(value, torch.Tensor) and not value.is_leaf:
                    copied_tensor(value, memo)
        found = copy.deepcopy(module, memo)
        for part in found.modules():
            if "parametrizations" in part._modules:
                _own_class(part)
        return found
    made = kind.__new__(kind)
    memo[id(module)] = made
    object.__setattr__(made, "__dict__", copied_tables(module.__dict__, memo))  # past a search for parameters
    return made


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: torch takes the properties off a class, and so off its copies."""
    kind: Any = type(module)
    module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))


def copied_tensor(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """A copy of a tensor, in its memory format; one computed from others (a pruned weight, say) loses its history."""
    known = memo.get(id(tensor))
    if known is not None:
        return known  # type: ignore[no-any-return]
    if type(tensor) is nn.Parameter and not tensor.__dict__:
        made: torch.Tensor = nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
    elif type(tensor) is torch.Tensor and not tensor.requires_grad and not tensor.is_quantized:
        made = tensor.clone()
    elif not tensor.is_leaf:  # which torch refuses to copy
        made = tensor.detach().clone()
    else:
        made = copy.deepcopy(tensor, memo)
    memo[id(tensor)] = made
    return made


def copied_tables(tables: dict[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """The state of a module (its ``__dict__``), copied; a compiled form stays behind, it computes with the original."""
    made = {}
    for key, value in tables.items():
        kind = type(value)
        if kind in _ATOMS:  # most are these or empty tables of hooks, and a call each adds up
            made[key] = value
        elif kind is OrderedDict and not value:
            made[key] = OrderedDict()
        elif key != "_compiled_call_impl":
            made[key] = _value(key, value, memo)
    return made


def copied_value(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of anything; of plain data at a fraction of the price."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is torch.Tensor:
        return copied_tensor(value, memo)
    if kind not in (dict, list, tuple):
        return kind() if kind is set and not value else copy.deepcopy(value, memo)
    if kind is tuple:
        items = [item if type(item) in _ATOMS else copied_value(item, memo) for item in value]
        return value if all(map(operator.is_, items, value)) else memo.setdefault(id(value), tuple(items))
    known = memo.get(id(value))
    if known is not None:
        return known
    made: Any = kind()
    memo[id(value)] = made  # before what is in it: a list may contain itself
    if kind is list:
        made.extend(item if type(item) in _ATOMS else copied_value(item, memo) for item in value)
    else:
        for key, item in value.items():
            made[key] = item if type(item) in _ATOMS else copied_value(item, memo)
    return made


def _value(key: str, value: Any, memo: dict[int, Any]) -> Any:
    if key in _TABLES:
        return {name: _entry(entry, memo) for name, entry in value.items()}
    if type(value) is OrderedDict and key.endswith("_hooks"):
        return OrderedDict(value)  # the hooks themselves are shared: a copy of one may be a copy of its whole owner
    return copied_value(value, memo)


def _entry(entry: Any, memo: dict[int, Any]) -> Any:
    if isinstance(entry, nn.Module):
        return copied_module(entry, memo)
    return copied_tensor(entry, memo) if isinstance(entry, torch.Tensor) else entry
