"""Quantize and dequantize on plain integer tensors: scale and zero point become arguments of both."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.errors import ConfigError
from qfx.graph import GraphView
from qfx.graph.provenance import describe
from qfx.kernels import onednn
from qfx.passes.lower.constants import Constant, constants, once_each
from qfx.passes.lower.roles import layer_of_weight
from qfx.passes.pipeline import Context
from qfx.spellings import CallSpelling, Signature, register

UNSIGNED = (torch.quint8, torch.uint8)

register(CallSpelling(onednn.quantize, ops.quantize, Signature.parse("x scale zero_point"), {"dtype": torch.uint8}))
register(CallSpelling(onednn.dequantize, ops.dequantize, Signature.parse("x scale zero_point"), {}))


def make_plain(gm: GraphModule, context: Context) -> bool:
    """Replace every trip of an activation between floats and quantized tensors by one to plain integers and back.

    A constant among the activations becomes its codes. Weights keep their quantize: they are packed from it.

    Raises:
        ConfigError: an activation has other codes than 0 to 255, or parameters per channel.
    """
    g, view = context.rewriter, context.view
    dead: list[Node] = []
    fixed = {constant.node: constant for constant in constants(view)}
    stored = once_each(partial(_stored, context))
    of: dict[Node, tuple[Any, Any]] = {}  # scale and zero point of plain codes
    for node in list(gm.graph.nodes):
        reading = view.read(node)
        if reading.op is ops.quantize and layer_of_weight(view, node) is None:
            _check(node, reading.attrs)
            if node in fixed:
                made = stored(fixed[node])
            else:
                with g.at(node, (node,)):
                    made = g.call(onednn.quantize, *node.args[:3])
            of[made] = (node.args[1], node.args[2])
            g.replace(node, made, erase=False)  # its dequantizes need its scale and zero point
            dead.append(node)
        elif reading.op is ops.dequantize:
            qparams = _qparams(view, node, of)
            if qparams is None:
                continue
            with g.at(node, (node,)):
                made = g.call(onednn.dequantize, node.args[0], *qparams)
            g.replace(node, made)
    for node in dead:
        g.erase_if_unused(node)
    return bool(dead)


def _stored(context: Context, constant: Constant) -> Node:
    with context.rewriter.at(constant.node):
        return context.rewriter.attribute(f"{constant.source.fqn.replace('.', '_')}_codes", constant.codes())


def _check(node: Node, attrs: object) -> None:
    assert isinstance(attrs, dict)
    if attrs["axis"] is not None or attrs["dtype"] not in UNSIGNED:
        scheme = "per channel" if attrs["axis"] is not None else str(attrs["dtype"])
        raise ConfigError(
            f"the onednn target takes activations per tensor and of 8 bits without sign; {describe(node)} is {scheme}. "
            'Change its QConfig, or use target="native".'
        )


def _qparams(view: GraphView, node: Node, of: dict[Node, tuple[Any, Any]]) -> tuple[Any, Any] | None:
    """The parameters of the codes that a dequantize takes; splits may lie between. None for a weight."""
    at = node.args[0]
    while isinstance(at, Node) and at not in of and view.read(at).op is not ops.quantize:
        at = at.args[0] if at.args else None
    return of.get(at) if isinstance(at, Node) else None
