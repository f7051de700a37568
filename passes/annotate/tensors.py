"""Which nodes are float tensors: sizes, indices, containers and integers carry no range and are never observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from qfx.graph import GraphView, Param, Reading

_FACTS = frozenset({"size", "dim", "assert"})
_FACT_ATTRIBUTES = frozenset(
    {"shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad", "itemsize", "nbytes"}
)


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
            if str(node.target).startswith("*"):  # what is left of them, and keywords
                rest: Any = {} if str(node.target).startswith("**") else tuple(example_inputs[position:])
                _note(node, rest, found, containers)
            elif position < len(example_inputs):
                _note(node, example_inputs[position], found, containers)
                if example_inputs[position] is None:
                    found.add(node)
            elif node.args:
                found.add(node)  # left to its default
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
    fact = reading.op.name == "getattr" and reading.attrs["name"] in _FACT_ATTRIBUTES
    if fact or reading.op.name in _FACTS:
        found.add(node)
        return
    sources = node.all_input_nodes
    builtin = getattr(node.target, "__module__", None) == "_operator"
    # Arithmetic on sizes is a size; an embedding of integers is floats.
    from_integers = reading.op.name not in ("embedding", "embedding_bag") and (builtin or not reading.op.opaque)
    if from_integers and sources and all(each in found for each in sources):
        found.add(node)


SPLITS = frozenset({"chunk", "split", "unbind"})


def sequences(view: GraphView) -> set[Node]:
    """Nodes that are, or may be, a tuple or list of tensors: splits, unknown calls, and parts of these.

    An unknown call that returns one tensor is among them. That costs nothing: whoever computes with it takes it as one.
    """
    found: set[Node] = set()
    for node in view.gm.graph.nodes:
        if not node.op.startswith("call"):
            continue
        reading = view.read(node)
        if reading.op.name in SPLITS or reading.op.opaque or _with_indices(reading):
            found.add(node)
        elif reading.op.name == "getitem" and takes_part(view, node, found):
            source = view.read(node.args[0])
            if isinstance(node.args[1], slice) or source.op.name not in SPLITS:
                found.add(node)
    return found


def _with_indices(reading: Reading) -> bool:
    """``max`` and ``min`` along a dimension return values and indices."""
    return reading.op.name in ("max", "min") and isinstance(reading.attrs["dim"], int)


def takes_part(view: GraphView, node: Node, parts: set[Node]) -> bool:
    """Whether a getitem takes a part of a sequence, rather than slice a tensor in ways only tensors can be."""
    return node.args[0] in parts and isinstance(node.args[1], int | str | slice)


def is_item(view: GraphView, node: Node, ints: set[Node]) -> bool:
    """Whether a node takes a tensor out of an input container, so that it is a source and no data move."""
    source = node.args[0] if node.args else None
    return view.read(node).op.name == "getitem" and isinstance(source, Node) and source in ints and node not in ints
