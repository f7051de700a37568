"""Which nodes are float tensors: sizes, indices, containers and integers carry no range and are never observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from qfx.graph import GraphView, Param

_FACTS = frozenset({"size", "dim", "getattr", "assert"})


def not_float(view: GraphView, example_inputs: Sequence[Any]) -> set[Node]:
    """Nodes that are no float tensors, as far as the graph and the example inputs tell. The model is not run.

    Args:
        view: the graph.
        example_inputs: what the model is called with; tells containers and integer tensors among the inputs.
    """
    found: set[Node] = set()
    containers: dict[Node, Any] = {}
    position = 0
    for node in view.gm.graph.nodes:
        if node.op == "placeholder":
            if position < len(example_inputs):
                _note(node, example_inputs[position], found, containers)
            position += 1
        elif node.op == "get_attr":
            value = view.value(node)
            if not (isinstance(value, Param) and value.tensor.is_floating_point()):
                found.add(node)
        elif node.op.startswith("call"):
            _call(view, node, found, containers)
    return found


def _note(node: Node, example: Any, found: set[Node], containers: dict[Node, Any]) -> None:
    if isinstance(example, torch.Tensor):
        if not example.is_floating_point():
            found.add(node)
    elif example is not None:
        found.add(node)
        if isinstance(example, dict | list | tuple):
            containers[node] = example


def _call(view: GraphView, node: Node, found: set[Node], containers: dict[Node, Any]) -> None:
    reading = view.read(node)
    source = node.args[0] if node.args else None
    if reading.op.name == "getitem" and isinstance(source, Node) and source in containers:
        try:
            _note(node, containers[source][node.args[1]], found, containers)
        except (KeyError, IndexError, TypeError):
            found.add(node)  # the example has no such item: nothing is known of it
        return
    if reading.op.name in _FACTS:
        found.add(node)
        return
    sources = node.all_input_nodes
    builtin = getattr(node.target, "__module__", None) == "_operator"
    # Arithmetic on sizes is a size; an embedding of integers is floats.
    from_integers = reading.op.name not in ("embedding", "embedding_bag") and (builtin or not reading.op.opaque)
    if from_integers and sources and all(each in found for each in sources):
        found.add(node)


def is_item(view: GraphView, node: Node, ints: set[Node]) -> bool:
    """Whether a node takes a tensor out of an input container, so that it is a source and no data move."""
    source = node.args[0] if node.args else None
    return view.read(node).op.name == "getitem" and isinstance(source, Node) and source in ints and node not in ints
