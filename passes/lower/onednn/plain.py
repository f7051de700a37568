"""Quantize and dequantize on plain integer tensors: scale and zero point become arguments of both."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.errors import ConfigError
from qfx.graph import Param
from qfx.graph.provenance import describe
from qfx.kernels import onednn
from qfx.passes.pipeline import Context
from qfx.spellings import CallSpelling, Signature, register

UNSIGNED = (torch.quint8, torch.uint8)

register(CallSpelling(onednn.quantize, ops.quantize, Signature.parse("x scale zero_point"), {"dtype": torch.uint8}))
register(CallSpelling(onednn.dequantize, ops.dequantize, Signature.parse("x scale zero_point"), {}))


def make_plain(gm: GraphModule, context: Context) -> bool:
    """Replace every trip of an activation between floats and quantized tensors by one to plain integers and back.

    Weights keep their quantize: they are packed from it.

    Raises:
        ConfigError: an activation has other codes than 0 to 255, or parameters per channel.
    """
    changed, g, view = False, context.rewriter, context.view
    for node in list(gm.graph.nodes):
        reading = view.read(node)
        if reading.op is ops.quantize and not isinstance(reading.inputs[0], Param):
            _check(node, reading.attrs)
            with g.at(node, (node,)):
                made = g.call(onednn.quantize, *node.args[:3])
            g.replace(node, made)
            changed = True
        elif reading.op is ops.dequantize:
            source = _quantize_of(context, node)
            if source is None:
                continue
            with g.at(node, (node,)):
                made = g.call(onednn.dequantize, node.args[0], *source.args[1:3])
            g.replace(node, made)
            changed = True
    return changed


def _check(node: Node, attrs: object) -> None:
    assert isinstance(attrs, dict)
    if attrs["axis"] is not None or attrs["dtype"] not in UNSIGNED:
        scheme = "per channel" if attrs["axis"] is not None else str(attrs["dtype"])
        raise ConfigError(
            f"the onednn target takes activations per tensor and of 8 bits without sign; {describe(node)} is {scheme}. "
            'Change its QConfig, or use target="native".'
        )


def _quantize_of(context: Context, node: Node) -> Node | None:
    """The quantize of an activation that a dequantize undoes; splits may lie between. None for a weight."""
    at = node.args[0]
    while isinstance(at, Node):
        reading = context.view.read(at)
        if reading.op is ops.quantize:
            return None if isinstance(reading.inputs[0], Param) else at
        inner = reading.inputs[0] if reading.inputs else None
        at = inner if isinstance(inner, Node) else None
    return None
