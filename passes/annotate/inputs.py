"""Which inputs of a node are activations, and which are parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch.fx import Node

from qfx.graph import GraphView, Param

NO_ROLES: Mapping[str, int] = MappingProxyType({})
_SLOTS = {"weight": "w", "bias": "b"}
_ROLES = tuple(_SLOTS)
PARAMETERS = {
    "w": "weight",
    "b": "bias",
    "gamma": "scale",
    "beta": "shift",
    "mean": "mean",
    "var": "variance",
}
"""Inputs of ops that are parameters, and what they are called."""


def activations(view: GraphView, root: Node, roles: Mapping[str, int] = NO_ROLES) -> Iterator[tuple[str, Node]]:
    """(slot, node) of every input that is an activation: not a weight, a bias or a number.

    Args:
        view: the graph.
        root: the node that reads them.
        roles: where an op this library does not know has its weight and bias (a pattern's ``input_type_to_index``).
    """
    reading = view.read(root)
    if reading.op.opaque or root.op == "call_module":
        parameters = {roles[role] for role in _ROLES if role in roles}
        for position, node in enumerate(root.args):
            if isinstance(node, Node) and position not in parameters:
                yield f"x{position}" if position else "x", node
        return
    for name, node in _inputs(view, root):
        if name not in PARAMETERS:
            yield name, node


def parameter_slots(view: GraphView, root: Node, value: Node, roles: Mapping[str, int] = NO_ROLES) -> set[str]:
    """The slots in which `root` takes `value` as a parameter; empty where it takes it as an activation, too."""
    if any(node is value for _, node in activations(view, root, roles)):
        return set()
    at = {position for position, each in enumerate(root.args) if each is value}
    named = {slot for role, slot in _SLOTS.items() if roles.get(role) in at}
    return named | {name for name, node in _inputs(view, root) if node is value and name in PARAMETERS}


def _inputs(view: GraphView, root: Node) -> Iterator[tuple[str, Node]]:
    """(slot, node) of every input of a call that can be read."""
    reading = view.read(root)
    if reading.op.opaque or root.op == "call_module":
        return
    for name, value in zip(reading.op.names, reading.inputs, strict=False):
        for item in value if isinstance(value, tuple) else (value,):
            node = item.node if isinstance(item, Param) else item
            if isinstance(node, Node):
                yield name, node


def weight_and_bias(view: GraphView, root: Node, roles: Mapping[str, int] = NO_ROLES) -> tuple[Any, Any]:
    """Weight and bias of a function, as the graph has them (a `Param` or a node); None for what it does not have."""
    reading = view.read(root)
    if reading.op.opaque:
        found = (roles.get(role, len(root.args)) for role in _ROLES)
        weight, bias = (view.value(root.args[index]) if index < len(root.args) else None for index in found)
        return weight, bias
    weight, bias = (reading.input(name) if name in reading.op.names else None for name in ("w", "b"))
    return weight, bias
