"""How many dimensions a value has, as far as the graph and the example inputs tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.graph.values import Param, Reading
from qfx.ops import QParamClass

if TYPE_CHECKING:
    from qfx.graph.view import GraphView

KEY = "qfx_rank"
Rank = int | None


def note_ranks(nodes: Iterable[Node], examples: Iterable[Any]) -> None:
    """Write the ranks of the example inputs into the metadata of the placeholders among `nodes`."""
    inputs = (node for node in nodes if node.op == "placeholder")
    for node, example in zip(inputs, examples, strict=False):
        if isinstance(example, torch.Tensor) and not str(node.target).startswith("*"):
            node.meta[KEY] = example.dim()


def examples_given(nodes: Iterable[Node]) -> bool:
    """Whether anything is known of the inputs of a graph."""
    return any(node.op == "placeholder" and _noted(node) is not None for node in nodes)


def rank(view: GraphView, node: Any, known: dict[Node, Rank]) -> Rank:
    """The number of dimensions of a value; None where nothing tells.

    Args:
        view: the graph.
        node: a node or a `Param`.
        known: what was worked out before; filled in.
    """
    if isinstance(node, Param):
        return node.tensor.dim()
    if not isinstance(node, Node):
        return 0 if isinstance(node, int | float) else None
    stack = [node]
    while stack:
        each = stack[-1]
        missing = [source for source in each.all_input_nodes if source not in known]
        if each in known or not missing or _noted(each) is not None:
            stack.pop()
            if each not in known:
                known[each] = _rank(view, each, known)
        else:
            stack.extend(missing)
    return known[node]


def _noted(node: Node) -> Rank:
    if KEY in node.meta:
        return int(node.meta[KEY])
    value = node.meta.get("val")  # what torch.export leaves
    return value.dim() if isinstance(value, torch.Tensor) else None


def _rank(view: GraphView, node: Node, known: dict[Node, Rank]) -> Rank:
    noted = _noted(node)
    if noted is not None:
        return noted
    if node.op == "get_attr":
        value = view.value(node)
        return value.tensor.dim() if isinstance(value, Param) else None
    reading = view.read(node)

    def of(value: Any) -> Rank:
        return known.get(value) if isinstance(value, Node) else rank(view, value, known)

    rule = _RULES.get(reading.op.name)
    if rule is not None:
        return rule(reading, of)
    if node.op == "call_module" and isinstance(view.module(str(node.target)), nn.RNNCell | nn.GRUCell):
        return of(node.args[0]) if node.args else None
    keeps = reading.op.qparams is not QParamClass.NEVER or reading.op.name in _KEEPING
    return of(reading.inputs[0]) if keeps and not reading.op.opaque and reading.inputs else None


Rule = Callable[[Reading, Callable[[Any], Rank]], Rank]

# Ops whose parameters are never those of their input, but whose shape is.
_KEEPING = frozenset(["gelu", "silu", "mish", "softplus", "softsign", "exp", "sqrt", "neg", "abs", "to"])


def _widest(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    ranks = [of(value) for value in reading.inputs[:2]]
    return None if None in ranks else max(rank for rank in ranks if rank is not None)


def _flatten(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    start, end = reading.attrs["start_dim"], reading.attrs["end_dim"]
    if isinstance(start, int) and start >= 0 and end == -1:
        return start + 1
    before = of(reading.inputs[0])
    if before is None or not (isinstance(start, int) and isinstance(end, int)):
        return None
    return before - (end % before - start % before) if before else 1


def _listed(attribute: str) -> Rule:
    def listed(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
        sizes = reading.attrs[attribute]
        return len(sizes) if isinstance(sizes, tuple | list) else None

    return listed


def _plus(number: int) -> Rule:
    def plus(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
        before = of(reading.inputs[0])
        return None if before is None else before + number

    return plus


def _reduced(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    before, dims = of(reading.inputs[0]), reading.attrs["dim"]
    if reading.attrs["keepdim"]:
        return before
    if dims is None:
        return 0
    count = len(dims) if isinstance(dims, tuple | list) else 1
    return None if before is None else before - count


def _first_item(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    items = reading.inputs[0]
    return of(items[0]) if isinstance(items, tuple) and items else None


def _unknown(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    return None


_SPLITS = frozenset(op.name for op in ops.SPLITS if op is not ops.unbind)  # unbind takes an axis away


def _item(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    """An item of a split has the rank of what was split, which the split stands for; an index drops and adds axes."""
    source, index = reading.inputs[0], reading.attrs["index"]
    before = of(source)
    if before is None:
        return None
    if isinstance(source, Node) and str(getattr(source.target, "__name__", source.target)) in _SPLITS:
        return before if isinstance(index, int) else None
    items = index if isinstance(index, tuple) else (index,)
    if any(isinstance(item, bool) or not isinstance(item, _PLAIN_INDICES) for item in items):
        return None  # an index that is computed, or picks places one by one
    return before - sum(isinstance(item, int) for item in items) + sum(item is None for item in items)


_PLAIN_INDICES = (int, slice, type(None), type(...))


def _product(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    one, other = (of(value) for value in reading.inputs[:2])
    if one is None or other is None:
        return None
    # A vector is a row or a column, which goes
    return 0 if one == other == 1 else max(one, other) - (1 in (one, other))


def _stacked(reading: Reading, of: Callable[[Any], Rank]) -> Rank:
    first = _first_item(reading, of)
    return None if first is None else first + 1


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "pow"), _widest),
    **dict.fromkeys(("mean", "sum"), _reduced),
    **dict.fromkeys(("squeeze", "unbind", "unflatten", "repeat_interleave", "max", "min", "tile"), _unknown),
    "flatten": _flatten,
    "reshape": _listed("shape"),
    "expand": _listed("shape"),
    "repeat": _listed("repeats"),
    "unsqueeze": _plus(1),
    "select": _plus(-1),
    "embedding": _plus(1),
    "cat": _first_item,
    "stack": _stacked,
    "matmul": _product,
    "getitem": _item,
    "bilinear": _unknown,
}
