"""A graph as plain values that pickle anywhere: node names and our metadata survive, functions travel by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node
from torch.fx.node import _get_qualified_name, map_aggregate

from qfx.graph.nodes import make_node


@dataclass(frozen=True, slots=True)
class Reference:
    """Another node, by its place in the graph."""

    index: int


@dataclass(frozen=True, slots=True)
class Named:
    """A function or operator, by its qualified name."""

    name: str


Record = tuple[str, str, Any, Any, Any, dict[str, Any]]


def to_records(graph: Graph) -> list[Record]:
    """Every node as (op, name, target, args, kwargs, our metadata)."""
    index = {node: i for i, node in enumerate(graph.nodes)}

    def leaf_reference(leaf: Any) -> Any:
        return Reference(index[leaf]) if isinstance(leaf, Node) else leaf

    def reference(value: Any) -> Any:
        return map_aggregate(value, leaf_reference)

    return [
        (node.op, node.name, _named(node), reference(node.args), reference(node.kwargs), ours(node.meta))
        for node in graph.nodes
    ]


def from_records(records: list[Record]) -> Graph:
    """The graph the records describe, with the same node names."""
    graph, nodes = Graph(), []

    def node_of(value: Any) -> Any:
        return map_aggregate(value, lambda leaf: nodes[leaf.index] if isinstance(leaf, Reference) else leaf)

    for op, name, target, args, kwargs, meta in records:
        found = _resolve(target.name) if isinstance(target, Named) else target
        node = make_node(graph, op, found, node_of(args), dict(node_of(kwargs)), name)
        node.meta.update(meta)
        nodes.append(node)
    return graph


def ours(meta: dict[str, Any]) -> dict[str, Any]:
    """The part of a node's metadata that is plain data of ours."""
    return {key: value for key, value in meta.items() if key.startswith("qfx")}


def _named(node: Node) -> Any:
    if node.op != "call_function" or not callable(node.target):
        return node.target
    name = _get_qualified_name(node.target)
    # A lambda or a nested function has no name to find it by; pickle then says so itself.
    return Named(name) if _found(name) is node.target else node.target


def _resolve(name: str) -> Any:
    target = _found(name)
    if target is None:
        raise ImportError(f"the graph calls {name}, which cannot be imported here")
    return target


def _found(name: str) -> Any:
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            target: Any = importlib.import_module(".".join(parts[:split]))
        except ImportError:
            continue
        for part in parts[split:]:
            target = getattr(target, part, None)
            if target is None:
                break
        else:
            return target
    return None
