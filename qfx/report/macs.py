"""Multiply-accumulates: how many the products of a graph do, where shapes are known."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx.graph import GraphView, Reading
from qfx.passes.observe import KEY as OBSERVES
from qfx.passes.rewriter import KERNEL_KEY
from qfx.report.shapes import Shapes, runs

InstanceOf = Callable[[Node], Mapping[str, Any] | None]
"""The plan's instance a node belongs to."""

_LAYER = re.compile(r"(conv(_transpose)?[123]d|linear|bilinear)$")
_LAYER_CLASS = re.compile(r"Conv|Linear")
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"})
# Products that are not worked out here. Whatever else torch has multiplies no matrices.
_UNCOUNTED = frozenset({
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "multi_head_attention_forward", "addbmm", "addmv", "mv", "dot", "vdot", "inner", "tensordot",
    "chain_matmul", "multi_dot", "matrix_power", "cdist", "conv_tbc", "convolution", "_convolution",
    "mkldnn_rnn_layer",
})  # fmt: skip
# Whose code is known to multiply only where it is called so; the last are torch's libraries of operators.
_KNOWN_CODE = frozenset({"torch", "qfx", "python", "aten", "prims", "quantized", "onednn", "quantized_decomposed"})


def count(view: GraphView, seen: Mapping[str, Any], instance: InstanceOf) -> dict[Node, int | None]:
    """Multiply-accumulates of every call, for one sample.

    Products of matrices are counted: convolutions, linear layers, matmul and its relatives, attention, recurrent
    layers. Everything else (sums, norms, pools, activations, table look-ups) counts 0, as torch's flop counter has it.
    A call's number is divided by the length of the batch: the first dimension of the first input whose shape is known,
    else of the first such result, else the commonest one. A network that is called without a batch is one sample.

    Args:
        view: a prepared, reference or lowered graph.
        seen: shapes that observers saw, by name of the value in the prepared graph.
        instance: see `InstanceOf`.

    Returns:
        The number by node, None where a node multiplies, or may multiply, and nothing says how much.
    """

    def seen_at(node: Node) -> Any:
        found = seen.get(node.name)
        if found or not node.op.startswith("call"):
            return found
        # A kernel stands for all of its instance; before lowering its root does, whose own result nobody observes.
        of = instance(node)
        whole = of is not None and (KERNEL_KEY in node.meta or node.name == of["nodes"][0])
        return seen.get(of["anchor"]) if of is not None and whole else None

    counter = _Counter(view, Shapes(view, seen_at), instance)
    calls = [node for node in view.gm.graph.nodes if node.op.startswith("call") and OBSERVES not in node.meta]
    numbers = {node: counter.of(node) for node in calls}
    samples = counter.samples()
    return {node: None if n is None else (n + samples // 2) // samples for node, n in numbers.items()}


@dataclass(frozen=True)
class _Layer:
    """A convolution or linear layer: its weight as the layer takes it, and where its result lies."""

    weight: tuple[int, ...]
    x: Any
    transposed: bool = False
    convolution: bool = True

    @property
    def dims(self) -> int:
        """Dimensions the kernel moves along."""
        return len(self.weight) - 2 if self.convolution else 0


class _Counter:
    """Counts node by node, for all samples of a call together."""

    def __init__(self, view: GraphView, shapes: Shapes, instance: InstanceOf) -> None:
        self._view, self._shapes, self._instance = view, shapes, instance
        self._unbatched = False

    def samples(self) -> int:
        """How many samples the shapes are of; to be asked when all nodes are counted, convolutions tell of no batch."""
        if self._unbatched:
            return 1
        nodes = list(self._view.gm.graph.nodes)
        ends = [node for node in nodes if node.op == "placeholder"] + list(nodes[-1].all_input_nodes)
        lengths = self._lengths(ends)
        commonest = Counter(self._lengths([node for node in nodes if node.op.startswith("call")])).most_common(1)
        return max(1, lengths[0] if lengths else commonest[0][0] if commonest else 1)

    def _lengths(self, nodes: list[Node]) -> list[int]:
        """First dimensions of what has more than one."""
        shapes = (self._shapes.of(node) for node in nodes)
        return [shape[0] for shape in shapes if shape is not None and len(shape) > 1]

    def of(self, node: Node) -> int | None:
        """Multiply-accumulates of a call; None where they are not known."""
        layer = self._layer(node)
        if layer is not None:
            return self._of_layer(layer, node)
        reading, name = self._view.read(node), _name(self._view, node)
        if reading.op.opaque and runs(self._view, node) not in _KNOWN_CODE:
            # A kernel of the user's stands for a known op; only a product leaves its number open.
            of = self._instance(node) if KERNEL_KEY in node.meta else None
            return 0 if of is not None and not _multiplies(of.get("op", "")) and not of["weighted"] else None
        if name in _PRODUCTS:
            return _PRODUCTS[name](self, reading)
        if name in _RECURRENT:
            return self._recurrent(reading)
        return None if reading.op.opaque and (_multiplies(name) or self._has_matrices(node)) else 0

    # -- layers ----------------------------------------------------------------------------------------------------
    def _layer(self, node: Node) -> _Layer | None:
        reading = self._view.read(node)
        if not reading.op.opaque:
            name = reading.op.name
            if _LAYER.match(name) is None:
                return None
            weight = self._shapes.of(reading.input("w"))
            shape = weight if weight is not None else ()
            return _Layer(shape, reading.input("x"), "transpose" in name, name.startswith("conv"))
        owner = self._owner(node)
        weight = getattr(owner, "weight", None)
        weight = weight() if callable(weight) else weight
        if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
            return None
        x = node.args[0] if node.args else None
        return _Layer(tuple(weight.shape), x, bool(getattr(owner, "transposed", False)), weight.dim() > 2)

    def _owner(self, node: Node) -> Any:
        """The module, or the description of a packed weight, that holds a layer's weight."""
        if node.op == "call_module":
            module = self._view.module(str(node.target))
            if runs(self._view, node) not in _KNOWN_CODE or not _LAYER_CLASS.match(type(module).__name__):
                return None
            inner = next(iter(module.children()), None)
            return inner if isinstance(module, nn.Sequential) else module
        packed: Any = getattr(self._view.gm, "rebuilt", {})
        held = [packed.get(str(source.target)) for source in node.all_input_nodes if source.op == "get_attr"]
        return next((owner for owner in held if getattr(owner, "kind", "").startswith(("conv", "linear"))), None)

    def _of_layer(self, layer: _Layer, node: Node) -> int | None:
        """Each place a kernel stops at (each place it starts from, transposed) takes the whole weight once."""
        shape = self._shapes.of(layer.x if layer.transposed else node)
        if shape is None and layer.dims == 0:
            shape = self._shapes.of(layer.x)
        if shape is None and layer.transposed:
            shape = self._starts(layer, node)
        if shape is None or not layer.weight:
            return None
        if layer.dims and len(shape) == layer.dims + 1:
            self._unbatched = True
        places = math.prod((*shape[: -layer.dims - 1], *shape[len(shape) - layer.dims :]))
        return places * math.prod(layer.weight)

    def _starts(self, layer: _Layer, node: Node) -> tuple[int, ...] | None:
        """The input's shape of a transposed convolution, from its result's; channels are left as they are."""
        shape, attrs = self._shapes.of(node), self._view.read(node).attrs
        if shape is None or "output_padding" not in attrs:
            return None
        places = [
            (length - 1 - more - dilation * (kernel - 1) + 2 * padding) // stride + 1
            for length, more, dilation, kernel, padding, stride in zip(
                shape[-layer.dims :],
                attrs["output_padding"],
                attrs["dilation"],
                layer.weight[2:],
                attrs["padding"],
                attrs["stride"],
                strict=True,
            )
        ]
        return (*shape[: -layer.dims], *places)

    # -- products of two values ------------------------------------------------------------------------------------
    def _shapes_of(self, reading: Reading, *positions: int) -> list[tuple[int, ...] | None]:
        """Shapes of some inputs; those a call does not have are not known."""
        inputs = reading.inputs
        return [self._shapes.of(inputs[at]) if at < len(inputs) else None for at in positions]

    def matmul(self, reading: Reading, first: int = 0) -> int | None:
        """Each element of the result sums over the dimension that both factors share."""
        x, y = self._shapes_of(reading, first, first + 1)
        result = self._shapes.of(reading.node)
        if result is None and x is not None and y is not None:
            result = tuple(torch.matmul(torch.empty(x, device="meta"), torch.empty(y, device="meta")).shape)
        shared = x[-1] if x else y[-2 if len(y) > 1 else -1] if y else None
        return None if shared is None or result is None else math.prod(result) * shared

    def einsum(self, reading: Reading) -> int | None:
        """Two factors: all letters at once. One factor only moves and sums; more have an order we do not know."""
        written, operands = reading.inputs[0], reading.inputs[1:]
        if len(operands) == 1 and isinstance(operands[0], tuple):
            operands = operands[0]
        if len(operands) < 2:
            return 0
        terms = str(written).replace(" ", "").partition("->")[0].split(",")
        lengths: dict[str, int] = {}
        for term, operand in zip(terms, operands, strict=False):
            shape = self._shapes.of(operand)
            if shape is None or len(shape) != len(term):
                return None
            for letter, length in zip(term, shape, strict=True):
                lengths[letter] = max(length, lengths.get(letter, 1))
        return math.prod(lengths.values()) if len(operands) == 2 else None

    # -- attention and recurrence ----------------------------------------------------------------------------------
    def attention(self, reading: Reading) -> int | None:
        """Scores, then their sums of values; what a mask or causality leaves out is counted, as it is computed."""
        q, k, v = self._shapes_of(reading, 0, 1, 2)
        q = q if q is not None else self._shapes.of(reading.node)
        if q is None or k is None or v is None:
            return None
        return math.prod(q[:-1]) * k[-2] * (k[-1] + v[-1])

    def multihead(self, reading: Reading) -> int | None:
        """``nn.MultiheadAttention``: projections of the three inputs, attention, the projection of its result."""
        module: Any = self._view.module(str(reading.node.target))
        if len(reading.inputs) < 3:
            return None
        q, k, v = self._shapes_of(reading, 0, 1, 2)
        result = self._first_result(reading.node)
        q = q if q is not None else result
        same = reading.inputs[0] is reading.inputs[1] is reading.inputs[2]
        k, v = (q, q) if same else (k, v)
        if q is None or k is None or v is None:
            return None
        width, queries, keys = module.embed_dim, math.prod(q[:-1]), math.prod(k[:-1])
        length = k[1 if module.batch_first and len(k) > 2 else 0]
        length += int(module.bias_k is not None) + int(module.add_zero_attn)
        projections = 2 * queries * width + keys * module.kdim + math.prod(v[:-1]) * module.vdim
        return int(width * (projections + 2 * queries * length))

    def _recurrent(self, reading: Reading) -> int | None:
        """Each step takes every matrix once, whatever the direction and the layer."""
        module = self._view.module(str(reading.node.target))
        (shape,) = self._shapes_of(reading, 0)
        shape = shape if shape is not None else self._first_result(reading.node)
        if shape is None:
            return None
        return math.prod(shape[:-1]) * sum(p.numel() for p in module.parameters() if p.dim() > 1)

    def _first_result(self, node: Node) -> tuple[int, ...] | None:
        """Shape of the first of several results."""
        items = (user for user in node.users if self._view.read(user).op.name == "getitem" and user.args[1] == 0)
        found = (self._shapes.of(item) for item in items)
        return next((shape for shape in found if shape is not None), self._shapes.of(node))

    # -- what may multiply -----------------------------------------------------------------------------------------
    def _has_matrices(self, node: Node) -> bool:
        """Whether a module of torch's owns what a product takes; a table of embeddings is only looked up."""
        if node.op != "call_module":
            return False
        modules = self._view.module(str(node.target)).modules()
        parts = [part for part in modules if not isinstance(part, nn.Embedding | nn.EmbeddingBag)]
        return any(parameter.dim() > 1 for part in parts for parameter in part.parameters(recurse=False))


_PRODUCTS: dict[str, Callable[[_Counter, Reading], int | None]] = {
    **dict.fromkeys(("matmul", "bmm", "mm"), _Counter.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), lambda counter, reading: counter.matmul(reading, first=1)),
    "einsum": _Counter.einsum,
    "scaled_dot_product_attention": _Counter.attention,
    "MultiheadAttention": _Counter.multihead,
}


def _multiplies(name: str) -> bool:
    known = name in _PRODUCTS or name in _UNCOUNTED or name in _RECURRENT
    return known or bool(_LAYER.match(name) or _LAYER_CLASS.match(name))


def _name(view: GraphView, node: Node) -> str:
    """What a call computes: the op's name, or the last part of what an unknown one is called."""
    op = view.read(node).op
    if not op.opaque:
        return op.name
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        target = target.overloadpacket
    name = op.name if node.op == "call_module" else str(getattr(target, "__name__", target))
    return name.removeprefix("linalg_")
