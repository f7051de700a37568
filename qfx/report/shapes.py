"""What is known of the values of a graph without running the model: what observers saw, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node
from torch.fx.node import map_aggregate

from qfx.graph import GraphView, Param, Reading
from qfx.passes.observe import KEY as OBSERVES

Seen = Callable[[Node], Sequence[int] | None]
"""Shape of a value as it was seen, or None."""

_WEIGHTED = frozenset({"linear", *(f"conv{n}d" for n in (1, 2, 3)), *(f"conv_transpose{n}d" for n in (1, 2, 3))})
# Ops whose result has the shape of their first input, so that either is known from the other.
_KEPT = frozenset({
    "quantize", "dequantize", "identity", "contiguous", "clone", "detach", "dropout", "batch_norm",
    "layer_norm", "group_norm", "instance_norm", "neg", "sigmoid", "tanh", "hardsigmoid", "hardswish", "elu",
    "leaky_relu", "prelu", "gelu", "silu", "mish", "softmax", "softplus", "softsign", "exp", "sqrt", "abs",
})  # fmt: skip
# What torch raises where a call does not suit its arguments, or has no form without data.
_REFUSED = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError)


class Shapes:
    """Shapes of values, worked out once: one sweep backward through ops that keep shapes, one forward through all.

    Going forward, torch's own functions are called with tensors that have no data (its meta device), so numbers that
    are computed from shapes are known too. Nobody else's code is run.

    Args:
        view: a prepared, reference or lowered graph.
        seen: what observers saw.
    """

    def __init__(self, view: GraphView, seen: Seen) -> None:
        self._view = view
        self._known: dict[Node, Any] = {}
        nodes = list(view.gm.graph.nodes)
        for node in nodes:
            shape = seen(node)
            if shape:
                self._known[node] = _blank(shape)
        for node in reversed(nodes):
            source = self._kept(node)
            if source is not None and node in self._known:
                self._known.setdefault(source, self._known[node])
        with torch.no_grad():
            for node in nodes:
                if node not in self._known:
                    value = self._worked_out(node)
                    if value is not None:
                        self._known[node] = value

    def of(self, value: Any) -> tuple[int, ...] | None:
        """The shape of a node or parameter, as a `Reading` has it; None where it is not known, or is no tensor."""
        found = (
            value.tensor if isinstance(value, Param) else self._known.get(value) if isinstance(value, Node) else None
        )
        return tuple(found.shape) if isinstance(found, torch.Tensor) else None

    def _kept(self, node: Node) -> Node | None:
        """The node whose shape `node` has."""
        if OBSERVES in node.meta:
            source: Any = node.args[0]
        else:
            op = self._view.read(node).op
            kept = op.clamp or op.name in _KEPT
            source = self._view.read(node).inputs[0] if kept and not op.opaque else None
            source = source.node if isinstance(source, Param) else source
        return source if isinstance(source, Node) else None

    def _worked_out(self, node: Node) -> Any:
        source = self._kept(node)
        if source is not None:
            return self._known.get(source)
        reading = self._view.read(node)
        if node.op == "get_attr":
            held = self._view.value(node)
            return _blank(held.tensor.shape) if isinstance(held, Param) else None
        if runs(self._view, node) not in ("torch", "aten", "python"):
            return None
        try:
            return self._called(reading)
        except _REFUSED:
            return None  # not known, as where nobody saw it: the summary counts such nodes

    def _called(self, reading: Reading) -> Any:
        node = reading.node
        if reading.op.name in _WEIGHTED:
            x, w = (self.of(reading.input(name)) for name in ("x", "w"))
            if x is None or w is None:
                return None
            # Whatever fills the padding, there is as much of it.
            attrs = {name: value for name, value in reading.attrs.items() if name != "padding_mode"}
            return getattr(F, reading.op.name)(_blank(x), _blank(w), **attrs)
        if any(source not in self._known for source in node.all_input_nodes):
            return None
        args: Any = map_aggregate(node.args, self._meant)
        kwargs: Any = map_aggregate(node.kwargs, self._meant)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            function: Any = node.target
            return function(*args, **kwargs)
        if node.op == "call_module":
            module = self._view.module(str(node.target))
            return None if any(True for _ in module.parameters()) else module.forward(*args, **kwargs)
        return None

    def _meant(self, value: Any) -> Any:
        known = self._known[value] if isinstance(value, Node) else value
        # A call that writes a new shape into its argument must not write it into ours.
        return known.detach() if isinstance(known, torch.Tensor) else known


def runs(view: GraphView, node: Node) -> str:
    """Whose code a call runs: ``"torch"``, ``"python"``, ``"qfx"``, or a package or operator library (``"aten"``)."""
    if node.op == "call_method":
        return "torch"
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return "a subgraph"
    code: Any = type(view.module(str(node.target))) if node.op == "call_module" else node.target
    module = str(getattr(code, "__module__", None) or "torch")
    if module.startswith("torch._ops."):
        return module.removeprefix("torch._ops.")
    package = module.partition(".")[0]
    return "python" if package in ("_operator", "operator", "builtins", "math") else package


def _blank(shape: Sequence[int]) -> torch.Tensor:
    return torch.empty(tuple(shape), device="meta")
