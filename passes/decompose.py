"""A reference graph without quantized tensors: plain integers, whose parameters every quantize and dequantize is told.

The spelling is that of ``torch.ops.quantized_decomposed``, which exporters read.
"""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import GraphModule, Node

from qfx import dtypes, ops
from qfx.kernels.decomposed import registered
from qfx.passes.convert import CODES_KEY
from qfx.passes.pipeline import Context
from qfx.qparams import EPS


def decompose(gm: GraphModule, context: Context) -> bool:
    """Spell every quantize and dequantize with plain integers, in place.

    Args:
        gm: a reference graph.
        context: of the graph.
    """
    g, view = context.rewriter, context.view
    library = registered()
    told: dict[Node, tuple[Any, tuple[Any, ...]]] = {}  # integers -> dequantize that fits, and its further arguments
    for node in list(gm.graph.nodes):
        if node._erased:
            continue
        reading = view.read(node)
        if reading.op is ops.quantize:
            low, high = node.meta.get(CODES_KEY) or dtypes.code_range(reading.attrs["dtype"])
            plain = dtypes.storage_dtype(reading.attrs["dtype"])
            scale, zero_point = reading.inputs[1:3]
            axis = reading.attrs["axis"]
            with g.at(node, (node,)):
                if axis is None:
                    arguments: tuple[Any, ...] = (float(scale.tensor), int(zero_point.tensor), low, high, plain)
                    made = g.call(library.quantize_per_tensor.default, node.args[0], *arguments)
                    told[made] = library.dequantize_per_tensor.default, arguments
                else:
                    arguments = (node.args[1], node.args[2], axis, low, high, plain)
                    made = g.call(library.quantize_per_channel.default, node.args[0], *arguments)
                    told[made] = library.dequantize_per_channel.default, arguments
            g.replace(node, made)
        elif reading.op is ops.quantize_dynamic:
            low, high = dtypes.code_range(reading.attrs["dtype"])
            plain = dtypes.storage_dtype(reading.attrs["dtype"])
            with g.at(node, (node,)):
                both = g.call(library.choose_qparams.tensor, node.args[0], low, high, EPS, plain)
                arguments = (*(g.call(operator.getitem, both, item) for item in (0, 1)), low, high, plain)
                made = g.call(library.quantize_per_tensor.tensor, node.args[0], *arguments)
            told[made] = library.dequantize_per_tensor.tensor, arguments
            g.replace(node, made)
        elif reading.op is ops.clamp_codes and node.args[0] in told:  # these quantizes keep within their codes
            g.replace(node, node.args[0])
        elif reading.op is ops.dequantize and node.args[0] in told:
            target, arguments = told[node.args[0]]
            with g.at(node, (node,)):
                made = g.call(target, node.args[0], *arguments)
            g.replace(node, made)
    for module in gm.modules():
        plainly: Any = getattr(module, "hand_out_plain_integers", None)
        if plainly is not None:
            plainly()
    return True
