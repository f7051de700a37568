"""The clamps that conversion put behind values that are multiplied join the kernels in front of them."""

from __future__ import annotations

from torch.fx import GraphModule

from qfx import ops
from qfx.kernels import onednn
from qfx.passes.pipeline import Context
from qfx.passes.reach import KEY
from qfx.passes.rewriter import KERNEL_KEY

BOUNDED = (onednn.conv, onednn.conv_add, onednn.linear, onednn.linear_add, onednn.add, onednn.mul)
"""The functions that take the largest code of their result."""


def join_clamps(gm: GraphModule, context: Context) -> bool:
    """A clamp of codes becomes an argument of the kernel it follows; elsewhere it is an integer kernel of its own."""
    changed, g, view = False, context.rewriter, context.view
    for reading in view.find(ops.clamp_codes):
        node, source = reading.node, reading.inputs[0]
        if KERNEL_KEY in node.meta:
            continue
        changed = True
        if source.target in BOUNDED and len(source.users) == 1:
            source.update_kwarg("most", node.kwargs["most"])
            source.meta[KEY] = node.meta[KEY]
            view.forget(source)
            g.replace(node, source)
        else:
            g.integer(node, "integer clamp")
    return changed
