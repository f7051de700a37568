"""Which configuration each node of a capture has, and which line of the mapping said so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.config import QConfigMapping, Resolved, resolve
from qfx.graph.attributes import submodule
from qfx.graph.provenance import module_path
from qfx.graph.walk import modules_in

KEY = "qfx_choice"
_CALLS = ("call_module", "call_function", "call_method")


def choose(gm: GraphModule, mapping: QConfigMapping) -> None:
    """Write the `Resolved` configuration of every call into its metadata, and on the module it calls.

    Runs on the fresh capture, before anything is rewritten, so object types are looked up by the user's own spelling.
    """
    calls: Counter[tuple[str, Any]] = Counter()
    for node in gm.graph.nodes:
        if node.op not in _CALLS:
            continue
        kind = object_type(gm, node)
        path = module_path(node)
        scope, scope_type = _scope(node)
        index = calls[scope, kind]
        calls[scope, kind] += 1
        asked: dict[str, Any] = {
            "object_types": [kind],
            "module_path": path if node.op == "call_module" else scope,
            "index": index,
            "scope": scope,
            "scope_type": None if node.op == "call_module" else scope_type,
        }
        found = resolve(mapping, **asked)
        node.meta[KEY] = Resolved(found.qconfig, found.entry, asked)
        if node.op == "call_module":  # where users look for it
            submodule(gm, str(node.target)).__dict__["qconfig"] = found.qconfig


def choice(node: Node) -> Resolved | None:
    """The configuration of a node; None for what never was a call of the user's."""
    found: Resolved | None = node.meta.get(KEY)
    return found


def inner_choices(module: nn.Module, path: str, mapping: QConfigMapping) -> Iterator[tuple[nn.Module, Resolved]]:
    """The modules inside one that is kept whole, each with the configuration the mapping has for it."""
    for inner, each in modules_in(module):
        if each is not module:
            yield each, resolve(mapping, object_types=[type(each)], module_path=f"{path}.{inner}", index=0)


def is_configured(node: Node, mapping: QConfigMapping) -> bool:
    """Whether a mapping quantizes the op that makes a value; for a constant, the module that has it."""
    if node.op == "get_attr":
        return resolve(mapping, object_types=(), module_path=module_path(node), index=0).qconfig is not None
    decided = choice(node)
    return decided is not None and decided.qconfig is not None


def configured_as(node: Node, source: Node) -> Node:
    """Give a node that takes the place of several the configuration of one of them; returns `node`."""
    if KEY in source.meta:
        node.meta[KEY] = source.meta[KEY]
    return node


def object_type(gm: GraphModule, node: Node) -> Any:
    """What a QConfigMapping calls a node: a module class (without its parametrizations), a function, a method name."""
    return type_before_parametrizations(submodule(gm, str(node.target))) if node.op == "call_module" else node.target


def _scope(node: Node) -> tuple[str, type | None]:
    """Path and class of the module whose forward makes the call."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if node.op == "call_module" and stack and stack[-1][0] == node.target:
        stack = stack[:-1]
    if not stack:
        return "", None
    path, kind = stack[-1]
    return str(path), kind if isinstance(kind, type) else None
