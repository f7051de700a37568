"""Weights that no kernel took pass through their 8 bits all the same, but through no deprecated dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule

from qfx import dtypes, ops
from qfx.graph import Param
from qfx.kernels import onednn
from qfx.nn.quantized.reference.weight import ReferenceQuantizedModule
from qfx.passes.pipeline import Context
from qfx.spellings import CallSpelling, Signature, register

# The report finds out what is left in float from the quantize behind it.
_SIGNATURE = Signature.parse("x scale zero_point axis lowest highest")
register(CallSpelling(onednn.through_integers, ops.quantize, _SIGNATURE, {}))


def make_leftovers_plain(gm: GraphModule, context: Context) -> bool:
    """Round the weights of layers that stay float: constants here, computed ones in the graph, modules in their own.

    The quantize of a computed weight keeps its name, by which the report knows why it is there.
    """
    changed, view, g = False, context.view, context.rewriter
    for node in list(gm.graph.nodes):
        if node.op == "call_module":
            _make_module_plain(view.module(str(node.target)))
        reading = view.read(node)
        if reading.op is not ops.quantize or node.target not in (torch.quantize_per_tensor, torch.quantize_per_channel):
            continue
        source, scale, zero_point = reading.inputs
        low, high = dtypes.code_range(reading.attrs["dtype"])
        rest = (reading.attrs["axis"], low, high)
        backs = list(node.users)
        if isinstance(source, Param):
            rounded = onednn.through_integers(source.tensor.detach(), scale.tensor, zero_point.tensor, *rest)
            with g.at(node):
                weight = g.attribute(f"{source.fqn.replace('.', '_')}_rounded", rounded)
        else:
            weight = node
            node.target, node.args, node.kwargs = onednn.through_integers, (*node.args[:3], *rest), {}
            view.forget(node)
        for back in backs:
            g.replace(back, weight)
        g.erase_if_unused(node)
        changed = True
    return changed


def _make_module_plain(module: Any) -> None:
    for inner in module.modules():
        if isinstance(inner, ReferenceQuantizedModule):
            inner.hand_out_plain_integers()
