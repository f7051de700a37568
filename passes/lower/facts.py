"""Sizes are asked of the codes: ``x.size(0)`` is no reason to turn a tensor back into floats."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from qfx import ops
from qfx.passes.pipeline import Context

_ATTRIBUTES = frozenset({"shape", "ndim", "device"})
_METHODS = frozenset({"numel", "nelement"})


def ask_codes(gm: GraphModule, context: Context) -> bool:
    """Let nodes that ask for a size, which is the same for codes, ask the codes."""
    changed = False
    for node in list(gm.graph.nodes):
        back = node.args[0] if node.args else None
        if not isinstance(back, Node) or context.view.read(back).op is not ops.dequantize:
            continue
        reading = context.view.read(node)
        attribute = reading.op is ops.getattr and reading.attrs["name"] in _ATTRIBUTES
        method = node.op == "call_method" and node.target in _METHODS
        if not (attribute or method or reading.op in (ops.size, ops.dim)):
            continue
        node.replace_input_with(back, back.args[0])
        context.view.forget(node)
        context.rewriter.erase_if_unused(back)
        changed = True
    return changed
