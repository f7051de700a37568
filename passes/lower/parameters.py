"""Which scale and zero point a quantized value has, as far as the graph tells."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from qfx import ops
from qfx.graph import GraphView, Param
from qfx.ops import QParamClass
from qfx.passes.lower.codes import numbers, output
from qfx.patterns import Match
from qfx.reject import Reject


def same_parameters(m: Match) -> bool | Reject:
    """The result must be in the parameters its input has, for the call to be all there is to do."""
    before, wanted = parameters(m.view, m.x) if m.x_scale is None else numbers(m.x_scale, m.x_zero_point), output(m)
    if before is None:
        return True  # an integer kernel made it; its parameters were solved together with these
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
            return numbers(scale, zero) if both else None
        if reading.op.qparams is not QParamClass.SAME or not reading.inputs:
            return None
        node = reading.inputs[0]
    return None


def quantized_items(m: Match) -> bool | Reject:
    """Guard: every tensor of a list was quantized."""
    if isinstance(m.xs, Node):
        return Reject(f"the tensors it takes are one value of the graph, {m.xs}", m.op.node)
    for item in m.xs:
        if not isinstance(item, Node) or m.view.read(item).op is not ops.dequantize:
            return Reject(f"{item} is not quantized", m.op.node)
    return True
