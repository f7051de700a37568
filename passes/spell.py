"""Calls that are others in disguise, spelled out where they are to be quantized: kernels know the plain ones.

What stays float keeps its spelling: ``x + alpha * y`` in two steps may differ by the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.passes.annotate.choices import choice
from qfx.passes.pipeline import Context

_ATEN = torch.ops.aten

# Concatenation along a dimension, for tensors of at least so many dimensions.
_STACKS = {"hstack": 1, "vstack": 0, "row_stack": 0, "dstack": 2, "column_stack": 1}
_BY_TARGET: dict[Any, tuple[str, int]] = {
    **{getattr(torch, name): (name, dim) for name, dim in _STACKS.items()},
    **{getattr(_ATEN, name).default: (name, dim) for name, dim in _STACKS.items() if hasattr(_ATEN, name)},
}


def spell_out(gm: GraphModule, context: Context) -> bool:
    """Write ``add(x, y, alpha=2)`` as ``x + y * 2``, and ``hstack`` and its like as ``cat``."""
    found = [node for node in gm.graph.nodes if _is_quantized(node)]
    changed = [_plain_add(context, node) or _plain_cat(context, node) for node in found]
    return any(changed)


def _is_quantized(node: Node) -> bool:
    decided = choice(node)
    return decided is not None and decided.qconfig is not None


def _plain_add(context: Context, node: Node) -> bool:
    if not context.view.may_be(node, (ops.add,)):
        return False
    g, reading = context.rewriter, context.view.read(node)
    if reading.op is not ops.add or reading.mutates:
        return False
    alpha = reading.attrs["alpha"]
    if not isinstance(alpha, int | float) or alpha == 1:
        return False
    x, y = reading.inputs
    with g.at(node):
        scaled = y * alpha if isinstance(y, int | float) else g.call(ops.mul, y, alpha)
        g.replace(node, g.call(ops.add, x, scaled))
    return True


def _plain_cat(context: Context, node: Node) -> bool:
    found = _BY_TARGET.get(node.target) if node.op == "call_function" else None
    tensors: Any = node.args[0] if node.args else node.kwargs.get("tensors")
    if found is None or not isinstance(tensors, list | tuple):
        return False
    name, dim = found
    ranks = {context.view.rank(each) for each in tensors}
    rank = ranks.pop() if len(ranks) == 1 else None
    if rank is None:
        return False
    if name == "hstack" and rank == 1:
        dim = 0
    elif rank <= max(dim, 1):
        return False  # the tensors get dimensions first
    g = context.rewriter
    with g.at(node):
        g.replace(node, g.call(torch.cat, list(tensors), dim=dim))
    return True
