"""Sizes are asked of the codes: ``x.size(0)`` is no reason to turn a tensor back into floats."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from qfx import ops
from qfx.passes.pipeline import Context

_ATTRIBUTES = frozenset({"shape", "ndim", "device"})
_METHODS = frozenset({"numel", "nelement"})


def ask_codes(gm: GraphModule, context: Context) -> bool:
    """Let nodes that ask for a size, which is the same for codes, ask the codes."""
    changed = False
    for back in [reading.node for reading in context.view.find(ops.dequantize)]:
        asking = [user for user in back.users if user.args and user.args[0] is back and _asks(context, user)]
        codes: Any = back.args[0]
        for node in asking:
            node.replace_input_with(back, codes)
            context.view.forget(node)
        if asking:
            context.rewriter.erase_if_unused(back)
            changed = True
    return changed


def _asks(context: Context, node: Node) -> bool:
    reading = context.view.read(node)
    attribute = reading.op is ops.getattr and reading.attrs["name"] in _ATTRIBUTES
    return attribute or reading.op in (ops.size, ops.dim) or (node.op == "call_method" and node.target in _METHODS)
