"""Ops whose result has its input's parameters: the same call on the quantized tensor."""

from __future__ import annotations

import torch
from torch.fx import Node

from qfx import ops
from qfx.kernels.native import NATIVE
from qfx.ops import Op, QParamClass
from qfx.passes.lower.codes import constant_bounds, output, per_tensor_output
from qfx.passes.lower.parameters import parameters, quantized_items, same_parameters
from qfx.passes.lower.site import batched, seen_rank, site_of, supported
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match
from qfx.patterns.catalogue import quantized as shapes
from qfx.reject import Reject

LISTS = (ops.cat, ops.stack)


def _same(op: Op) -> Rule:
    kernel = NATIVE.get(op.name)  # what only moves values needs none
    takes = () if kernel is None else (supported(kernel),)
    if op in (ops.max_pool3d, ops.avg_pool3d):
        takes = (*takes, batched("out"))

    @rule(shapes.same(op), where=(per_tensor_output, constant_bounds, *takes, same_parameters))
    def lower_same(m: Match, g: Rewriter) -> Node:
        attrs = m.op.attrs
        function = None if kernel is None else kernel.function(site_of(m))
        name = f"quantized {op.name}" if kernel is None else kernel.name
        if kernel is not None and function is not None:
            return g.integer(g.call(function, *kernel.arrange(m.x, None, None, attrs)), name)
        # torch's quantized max pools read lists of one number otherwise than its float ones, where they read them.
        if "max_pool" in op.name and _lists_of_one(m):
            return g.integer(g.call(op, m.x, **attrs), name)
        x = m.x
        if op is ops.pad and seen_rank(m) == 5:  # in three dimensions torch pads no quantized tensor in channels last
            x = g.integer(g.method("contiguous", x), "quantized contiguous")
        return g.integer(g.same(m.op, {m.back.node: x}), name)

    return lower_same


def _lists_of_one(m: Match) -> bool:
    node = m.op.node
    spelled = vars(m.view.module(str(node.target))).values() if node.op == "call_module" else node.args[1:]
    return any(isinstance(value, list | tuple) and len(value) == 1 for value in (*spelled, *node.kwargs.values()))


def _drops_dimensions(m: Match) -> bool | Reject:
    attrs = m.op.attrs
    if attrs["dim"] is not None and not attrs["keepdim"]:
        return True
    return Reject(f"{m.op.node} keeps its dimensions or has none left", m.op.node)


@rule(shapes.same(ops.mean), where=(per_tensor_output, _drops_dimensions, same_parameters), priority=-1)
def lower_mean(m: Match, g: Rewriter) -> Node:
    """A mean that drops dimensions, in two steps: torch's own raises for one place in channels last."""
    dims = m.op.attrs["dim"]
    kept = g.integer(g.call(torch.mean, m.x, dims, True), NATIVE["mean"].name)
    return g.integer(g.call(torch.squeeze, kept, dims), "quantized squeeze")


@rule(shapes.gathered(ops.cat), where=(per_tensor_output, quantized_items))
def lower_cat(m: Match, g: Rewriter) -> Node:
    """Concatenation; inputs in other parameters are requantized by the kernel."""
    items = [m.view.read(item).inputs[0] for item in m.xs]
    kernel = NATIVE["cat"]
    if all(parameters(m.view, item) == output(m) for item in items):
        # Nothing to requantize, so the call stays as it is written
        return g.integer(g.same(m.op, {item: m.view.read(item).inputs[0] for item in m.xs}), kernel.name)
    y = g.call(kernel.call, items, m.op.attrs["dim"], m.scale, m.zero_point)
    g.integer(y, kernel.name)
    return y


@rule(shapes.gathered(ops.stack), where=(per_tensor_output, quantized_items))
def lower_stack(m: Match, g: Rewriter) -> Node:
    """Stacking of values with the same parameters."""
    y = g.same(m.op, {item: m.view.read(item).inputs[0] for item in m.xs})
    g.integer(y, "quantized stack")
    return y


@rule(shapes.requantized, where=(per_tensor_output,))
def cancel(m: Match, g: Rewriter) -> Node | None:
    """Back to float and at once to the same integers."""
    return m.x if parameters(m.view, m.x) == output(m) else None


KEEPING = tuple(
    op
    for op in ops.REGISTRY.values()
    if op.qparams is QParamClass.SAME and op not in (*ops.SPLITS, *LISTS, ops.clamp_codes) and op.inputs == ("x",)
)
MOVES: tuple[Rule, ...] = (lower_mean, *(_same(op) for op in KEEPING), lower_cat, lower_stack, cancel)
