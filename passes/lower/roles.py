"""What a quantized value is to those who read it, and how large it was when it was observed."""

from __future__ import annotations

from torch.fx import Node

from qfx import ops
from qfx.graph import GraphView
from qfx.passes.annotate.inputs import parameter_slots

_BACK = frozenset({ops.dequantize})


def layer_of_weight(view: GraphView, quantized: Node) -> Node | None:
    """The layer that takes a quantize's result as its weight; None where anybody reads it as an activation."""
    found: Node | None = None
    for back in quantized.users:
        if not back.users or not view.may_be(back, _BACK) or view.read(back).op is not ops.dequantize:
            return None
        for layer in back.users:
            if layer.op == "call_module":
                return None  # it has its weight itself
            if parameter_slots(view, layer, back) != {"w"}:
                return None
            found = layer
    return found


def seen_shape(view: GraphView, value: object) -> list[int]:
    """The shape of a value when its observer saw it; ``[]`` where none tells.

    Args:
        view: the graph.
        value: a node of the reference graph, or the quantize of one, clamped or not.
    """
    if isinstance(value, Node) and view.read(value).op is ops.clamp_codes:
        value = value.args[0]
    if isinstance(value, Node) and view.read(value).op is ops.quantize:
        value = value.args[0]
    plan = getattr(view.gm, "plan", {})
    return list(plan.get("shapes", {}).get(value.name, [])) if isinstance(value, Node) else []
