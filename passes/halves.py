"""Half floats in the place of integers: values are cast and cast back around every op, which computes in float32.

No kernel computes with them here. What is gained is memory, and the numbers of a device that has such kernels. A value
that is only moved between two casts stays cast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.config.observer_facts import observer_facts
from qfx.ops import QParamClass
from qfx.passes.pipeline import Context

HALF_KEY = "qfx_half"
"""Metadata of a node that casts to half floats in the place of an observer."""

WHY = "half floats have no kernel here: it computes in float32, of values rounded to float16"


def cast(context: Context, node: Node) -> Node:
    """Half floats and back, in the place of an observer node, which stays."""
    g, value = context.rewriter, node.args[0]
    with g.at(node):
        made = g.method("to", value, torch.float16)
        made.meta[HALF_KEY] = True
        return g.method("dequantize", made)


def in_halves(instances: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The nodes of instances whose activations are half floats -> why no kernel takes them."""
    halves = (each for each in instances.values() if _is_half(each["qconfig"].activation))
    return {name: WHY for instance in halves for name in instance["nodes"]}


def _is_half(factory: Any) -> bool:
    facts = observer_facts(factory)
    return facts.dtype is torch.float16 and not facts.is_dynamic


def move_halves(gm: GraphModule, context: Context) -> bool:
    """Move half floats instead of casting them back, moving, and casting again."""
    g, view, changed = context.rewriter, context.view, False
    casts = [node for node in gm.graph.nodes if HALF_KEY in node.meta]
    halves = set(casts)
    for node in casts:
        if not isinstance(node.args[0], Node):
            continue
        move: Any = node.args[0]
        reading = view.read(move)
        moves = reading.op.recomputable and reading.op.qparams is QParamClass.SAME and reading.op.inputs == ("x",)
        back: Any = move.args[0] if moves and move.users.keys() == {node} else None
        ready = isinstance(back, Node) and view.read(back).op is ops.dequantize and back.args[0] in halves
        if not ready or reading.mutates:
            continue
        move.replace_input_with(back, back.args[0])
        view.forget(move)
        halves.add(move)
        g.replace(node, move)
        g.erase_if_unused(back)
        changed = True
    return changed
