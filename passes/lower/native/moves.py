"""Ops whose result has its input's parameters: the same call on the quantized tensor."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from qfx import ops
from qfx.graph import GraphView, Param
from qfx.kernels.native import NATIVE
from qfx.ops import Op, QParamClass
from qfx.passes.lower.codes import per_tensor_output
from qfx.passes.lower.native.weighted import KERNEL_KEY
from qfx.passes.lower.site import supported
from qfx.passes.pipeline import Context
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match
from qfx.patterns.catalogue import quantized as shapes
from qfx.reject import Reject

SPLITS = (ops.chunk, ops.split, ops.unbind)
LISTS = (ops.cat, ops.stack)


def _same_parameters(m: Match) -> bool | Reject:
    """The result must be in the parameters its input has, for the call to be all there is to do."""
    before = parameters(m.view, m.x)
    if before is None:
        return True  # an integer kernel made it; its parameters were solved together with these
    wanted = (float(m.scale.tensor), int(m.zero_point.tensor))
    return before == wanted or Reject(
        f"{m.op.node if m.op else m.anchor} would change scale {before} to {wanted}", m.anchor
    )


def parameters(view: GraphView, node: Any) -> tuple[float, int] | None:
    """Scale and zero point a value was quantized with, as far as calls that keep them can be followed."""
    while isinstance(node, Node):
        reading = view.read(node)
        if reading.op is ops.quantize:
            scale, zero = reading.inputs[1:3]
            both = isinstance(scale, Param) and isinstance(zero, Param) and scale.tensor.dim() == 0
            return (float(scale.tensor), int(zero.tensor)) if both else None
        if reading.op.qparams is not QParamClass.SAME or not reading.inputs:
            return None
        node = reading.inputs[0]
    return None


def _same(op: Op) -> Rule:
    kernel = NATIVE.get(op.name)  # what only moves values needs none
    takes = () if kernel is None else (supported(kernel),)

    @rule(shapes.same(op), where=(per_tensor_output, *takes, _same_parameters))
    def lower_same(m: Match, g: Rewriter) -> Node:
        y = g.same(m.op, {m.back.node: m.x})
        y.meta[KERNEL_KEY] = f"quantized {op.name}" if kernel is None else kernel.name
        return y

    return lower_same


def _quantized_items(m: Match) -> bool | Reject:
    for item in m.xs:
        if not isinstance(item, Node) or m.view.read(item).op is not ops.dequantize:
            return Reject(f"{item} is not quantized", m.op.node)
    return True


@rule(shapes.gathered(ops.cat), where=(per_tensor_output, _quantized_items))
def lower_cat(m: Match, g: Rewriter) -> Node:
    """Concatenation; inputs in other parameters are requantized by the kernel."""
    items = [m.view.read(item).inputs[0] for item in m.xs]
    kernel = NATIVE["cat"]
    y = g.call(kernel.call, items, m.op.attrs["dim"], m.scale, m.zero_point)
    y.meta[KERNEL_KEY] = kernel.name
    return y


@rule(shapes.gathered(ops.stack), where=(per_tensor_output, _quantized_items))
def lower_stack(m: Match, g: Rewriter) -> Node:
    """Stacking of values with the same parameters."""
    y = g.same(m.op, {item: m.view.read(item).inputs[0] for item in m.xs})
    y.meta[KERNEL_KEY] = "quantized stack"
    return y


@rule(shapes.requantized, where=(per_tensor_output,))
def cancel(m: Match, g: Rewriter) -> Node | None:
    """Back to float and at once to the same integers."""
    wanted = (float(m.scale.tensor), int(m.zero_point.tensor))
    return m.x if parameters(m.view, m.x) == wanted else None


def sink_splits(gm: GraphModule, context: Context) -> bool:
    """Move dequantize behind a split: split the integers, dequantize the items."""
    changed, g = False, context.rewriter
    for node in list(gm.graph.nodes):
        reading = context.view.read(node)
        if reading.op not in SPLITS:
            continue
        back = reading.inputs[0]
        items = list(node.users)
        ready = isinstance(back, Node) and context.view.read(back).op is ops.dequantize
        if not ready or any(context.view.read(item).op is not ops.getitem for item in items):
            continue
        node.replace_input_with(back, back.args[0])
        context.view.forget(node)
        node.meta[KERNEL_KEY] = f"quantized {reading.op.name}"
        for item in items:
            item.meta[KERNEL_KEY] = "quantized getitem"
            readers = list(item.users)
            with g.at(item.next, (item,)):
                after = g.method("dequantize", item)
            for user in readers:
                user.replace_input_with(item, after)
                context.view.forget(user)
        g.erase_if_unused(back)
        changed = True
    return changed


_KEEPING = tuple(
    op
    for op in ops.REGISTRY.values()
    if op.qparams is QParamClass.SAME and op not in SPLITS and op not in LISTS and op.inputs == ("x",)
)
MOVES: tuple[Rule, ...] = (*(_same(op) for op in _KEEPING), lower_cat, lower_stack, cancel)
