"""The clamps that conversion put behind values that are multiplied join the clamps that lowering made."""

from __future__ import annotations

from torch.fx import GraphModule

from qfx import ops
from qfx.passes.pipeline import Context
from qfx.passes.reach import KEY
from qfx.passes.rewriter import KERNEL_KEY


def join_clamps(gm: GraphModule, context: Context) -> bool:
    """Two clamps of codes in a row become one; each is an integer kernel from now on."""
    changed, g, view = False, context.rewriter, context.view
    for reading in view.find(ops.clamp_codes):
        node, source = reading.node, reading.inputs[0]
        if KERNEL_KEY in node.meta:
            continue
        changed = True
        if view.read(source).op is ops.clamp_codes and len(source.users) == 1:
            source.update_kwarg("most", node.kwargs["most"])
            source.meta[KEY] = node.meta[KEY]
            view.forget(source)
            g.replace(node, source)
        else:
            g.integer(node, "clamp of codes")
    return changed
