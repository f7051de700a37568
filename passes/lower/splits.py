"""Splits stay in integers: dequantize moves behind them, to each item."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from qfx import ops
from qfx.passes.pipeline import Context


def sink_splits(gm: GraphModule, context: Context) -> bool:
    """Move dequantize behind a split: split the integers, dequantize the items."""
    changed, g = False, context.rewriter
    for reading in context.view.find(*ops.SPLITS):
        node, back = reading.node, reading.inputs[0]
        items = list(node.users)
        ready = isinstance(back, Node) and context.view.read(back).op is ops.dequantize
        if not ready or not all(_takes_one(context, item) for item in items):
            continue
        if any(context.view.read(reader).mutates for item in items for reader in item.users):
            continue  # a write to an item shows in what was split, and in the others where they overlap
        node.replace_input_with(back, back.args[0])
        context.view.forget(node)
        g.integer(node, f"quantized {reading.op.name}")
        for item in items:
            g.integer(item, "quantized getitem")
            readers = list(item.users)
            with g.at(item.next, (item,)):
                after = g.method("dequantize", item)
            for user in readers:
                user.replace_input_with(item, after)
                context.view.forget(user)
        g.erase_if_unused(back)
        changed = True
    return changed


def _takes_one(context: Context, node: Node) -> bool:
    """Whether a reader of a split takes one item of it; a slice of it would be a list again."""
    return context.view.read(node).op is ops.getitem and isinstance(node.args[1], int)
