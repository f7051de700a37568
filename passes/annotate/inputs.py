"""Which inputs of a node are activations."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node

from qfx.graph import GraphView, Param

_PARAMETERS = frozenset({"w", "b", "gamma", "beta", "mean", "var"})


def activations(view: GraphView, root: Node) -> Iterator[tuple[str, Node]]:
    """(slot, node) of every input that is an activation: not a weight, a bias or a number."""
    reading = view.read(root)
    if reading.op.opaque or root.op == "call_module":
        for position, node in enumerate(root.args):
            if isinstance(node, Node):
                yield f"x{position}" if position else "x", node
        return
    for name, value in zip(reading.op.names, reading.inputs, strict=False):
        if name in _PARAMETERS:
            continue
        for item in value if isinstance(value, tuple) else (value,):
            node = item.node if isinstance(item, Param) else item
            if isinstance(node, Node):
                yield name, node
