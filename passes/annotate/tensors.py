"""Which nodes are float tensors: sizes, indices, containers and integers carry no range and are never observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from qfx import ops
from qfx.graph import GraphView, Param, Reading
from qfx.passes.annotate.inputs import activations

_FACTS = frozenset({"size", "dim", "assert"})
# Methods without an op of their own that answer with numbers, and those that answer in the dtype they are asked for.
_NUMBERS = frozenset({"numel", "nelement", "element_size", "stride", "item", "tolist", "is_contiguous", "get_device"})
_CASTS = frozenset({"float", "to", "type", "type_as"})
_FACT_ATTRIBUTES = frozenset(
    {"shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad", "itemsize", "nbytes"}
)


def not_float(view: GraphView, example_inputs: Sequence[Any] | None) -> set[Node]:
    """Nodes that are no float tensors, as far as the graph and the example inputs tell. The model is not run.

    Constants of another dtype than float32, and what is computed from them, are among them: observers and quantize take
    float32.

    Args:
        view: the graph.
        example_inputs: what the model is called with; tells containers and integer tensors among the inputs. None
            where nobody knows: every input without a number for its default is taken for a float tensor.
    """
    found: set[Node] = set()
    wide: set[Node] = set()  # float64 and the like, which spreads to whatever is computed with it
    containers: dict[Node, Any] = {}
    position = 0
    for node in view.gm.graph.nodes:
        if node.op == "placeholder":
            if example_inputs is None:
                if node.args and node.args[0] is not None:
                    found.add(node)  # a number by default
                continue
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
            _constant(view, node, found, wide)
        elif node.op.startswith("call"):
            _call(view, node, found, containers)
            if wide and str(node.target) not in _CASTS and any(each in wide for _, each in activations(view, node)):
                found.add(node)
                wide.add(node)
    return found


def _constant(view: GraphView, node: Node, found: set[Node], wide: set[Node]) -> None:
    value = view.value(node)
    if isinstance(value, Param) and value.tensor.dtype is torch.float32:
        return
    found.add(node)
    # A tensor without dimensions gives its dtype to no other.
    if isinstance(value, Param) and value.tensor.is_floating_point() and value.tensor.dim() > 0:
        wide.add(node)


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
    if fact or reading.op.name in _FACTS or (node.op == "call_method" and node.target in _NUMBERS):
        found.add(node)
        return
    sources = node.all_input_nodes
    builtin = getattr(node.target, "__module__", None) == "_operator"
    # Arithmetic on sizes is a size; an embedding of integers is floats.
    from_integers = reading.op.name not in ("embedding", "embedding_bag") and (builtin or not reading.op.opaque)
    if from_integers and sources and all(each in found for each in sources):
        found.add(node)


def is_split(reading: Reading) -> bool:
    """Whether a node splits a tensor, in a way that can be read."""
    return reading.op in ops.SPLITS


def sequences(view: GraphView) -> set[Node]:
    """Nodes that are, or may be, a tuple or list of tensors: splits, unknown calls, and parts of these.

    An unknown call that returns one tensor is among them. That costs nothing: whoever computes with it takes it as one.
    """
    found: set[Node] = set()
    for node in view.gm.graph.nodes:
        if not node.op.startswith("call"):
            continue
        reading = view.read(node)
        if is_split(reading) or reading.op.opaque or _with_indices(reading):
            found.add(node)
        elif reading.op.name == "getitem" and takes_part(view, node, found):
            source = view.read(node.args[0])
            if isinstance(node.args[1], slice) or not is_split(source):
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
