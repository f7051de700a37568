"""Views become reshapes: kernels give channels last, where a view that merges dimensions does not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.graph import GraphView
from qfx.nn import intrinsic
from qfx.passes.pipeline import Context

_ATEN: tuple[Any, ...] = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def reshape_views(gm: GraphModule, context: Context) -> bool:
    """Spell every view of a tensor's shape as the reshape it is; where the memory fits, that is a view, too.

    Those that stay in float as well: what is dequantized is in channels last, too. What a linear layer gives never is.
    """
    changed = False
    for node in gm.graph.nodes:
        spelled: Any = node.target
        if node.op == "call_method" and spelled == "view_as":
            node.target = "reshape_as"
        elif node.op == "call_method" and spelled == "view" and context.view.read(node).op is ops.reshape:
            if _of_linear(context.view, node):
                continue
            node.target = "reshape"
            node.kwargs = _reshaped(node)
        elif node.op == "call_function" and spelled in _ATEN:
            node.target = torch.ops.aten.reshape.default
            node.kwargs = _reshaped(node)
        else:
            continue
        context.view.forget(node)
        changed = True
    return changed


def _of_linear(view: GraphView, node: Node) -> bool:
    """Whether a node reads the result of a linear layer, clamped or not."""
    value: Any = node.args[0] if node.args else None
    while isinstance(value, Node):
        reading = view.read(value)
        module = view.module(str(value.target)) if value.op == "call_module" else None
        if reading.op is ops.linear or isinstance(module, nn.Linear | intrinsic.LinearReLU):
            return True
        if not reading.op.clamp and reading.op not in (ops.quantize, ops.dequantize, ops.clamp_codes):
            return False
        value = reading.inputs[0]
    return False


def _reshaped(node: Node) -> dict[str, Any]:
    """The keyword arguments of a view, as reshape calls them."""
    return {"shape" if name == "size" else name: value for name, value in node.kwargs.items()}
