"""Layers that quantize their input in every call, and tables of embeddings: one kernel each, floats in and out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.errors import QfxError
from qfx.graph import Param, Reading
from qfx.kernels.packing import PackedSpec
from qfx.nn import intrinsic, quantized
from qfx.nn.intrinsic.quantized import dynamic as fused
from qfx.nn.quantized import dynamic, reference
from qfx.passes.pipeline import Context

LAYERS: Mapping[type[nn.Module], Any] = MappingProxyType(
    {
        getattr(reference, name): getattr(dynamic, name)
        for name in ("Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")
    }
)
TABLES: Mapping[type[nn.Module], Any] = MappingProxyType(
    {reference.Embedding: quantized.Embedding, reference.EmbeddingBag: quantized.EmbeddingBag}
)

_LINEAR = (ops.linear,)


def lower_dynamic(gm: GraphModule, context: Context) -> bool:
    """Swap reference layers for those with kernels, and call the kernels of layers spelled as functions."""
    changed = False
    swapped: dict[nn.Module, nn.Module] = {}
    for node in list(gm.graph.nodes):
        if node._erased:
            continue
        if node.op == "call_module":
            changed = _module(context, node, swapped) or changed
        elif context.view.may_be(node, _LINEAR) and context.view.read(node).op is ops.linear:
            changed = _function(context, node) or changed
    return changed


def _quantized(context: Context, value: Any) -> Reading | None:
    """The reading of the run-time quantize a value went through, and back; None for any other value."""
    if not isinstance(value, Node):
        return None
    back = context.view.read(value)
    if back.op is not ops.dequantize or not isinstance(back.inputs[0], Node):
        return None
    found = context.view.read(back.inputs[0])
    return found if found.op is ops.quantize_dynamic else None


def _read_plain(context: Context, node: Node, before: Reading) -> None:
    """Let a node read the float value itself: its kernel quantizes."""
    back, value = node.args[0], before.inputs[0]
    assert isinstance(back, Node)
    node.replace_input_with(back, value)
    context.view.forget(node)
    context.rewriter.erase_if_unused(back)
    context.rewriter.erase_if_unused(before.node)


def _module(context: Context, node: Node, swapped: dict[nn.Module, nn.Module]) -> bool:
    g, path = context.rewriter, str(node.target)
    module: Any = context.view.module(path)
    kind = type(module)
    if kind in TABLES or kind in TABLES.values():
        if kind in TABLES and not _swap(context, node, TABLES[kind], module, swapped):
            return False
        g.integer(node, f"quantized.{kind.__name__} (weights only)")
        return True
    with_relu = kind is intrinsic.LinearReLU and type(module[0]) is reference.Linear
    known = kind in LAYERS or with_relu or kind in (*LAYERS.values(), fused.LinearReLU)
    before = _quantized(context, node.args[0]) if known and node.args else None
    if before is None:
        return False
    if (kind in LAYERS or with_relu) and not _swap(
        context, node, fused.LinearReLU if with_relu else LAYERS[kind], module, swapped
    ):
        return False
    _read_plain(context, node, before)
    g.integer(node, f"quantized.dynamic.{type(context.view.module(path)).__name__}")
    return True


def _swap(context: Context, node: Node, cls: Any, module: Any, swapped: dict[nn.Module, nn.Module]) -> bool:
    """Put the layer with a kernel in the place of the reference one; False, and the reason noted, if none takes it.

    `swapped` has those made: a module that is called by two names stays one.
    """
    gm: Any = context.rewriter.gm
    try:
        made = swapped[module] if module in swapped else cls.from_reference(module)
    except QfxError as error:
        gm.plan["float"][node.name] = f"no kernel takes it: {error}"
        return False
    swapped[module] = made
    context.rewriter.install(str(node.target), made)
    context.view.forget(node)
    return True


def _function(context: Context, node: Node) -> bool:
    """``F.linear`` of a run-time quantized input and a quantized or half-float weight, with the relu that follows."""
    reading, g = context.view.read(node), context.rewriter
    before = _quantized(context, reading.inputs[0])
    packed = _packed(context, reading) if before is not None else None
    if before is None or packed is None:
        return False
    after = next(iter(node.users), None)
    relu = after is not None and len(node.users) == 1 and context.view.read(after).op is ops.relu
    last = after if relu and after is not None else node
    half = packed.kind == "linear_fp16"
    name = f"linear{'_relu' if relu else ''}_dynamic{'_fp16' if half else ''}"
    more = () if half else (before.attrs["reduce_range"],)
    with g.at(last, (node, last)):
        made = g.call(getattr(torch.ops.quantized, name), before.inputs[0], g.packed(packed), *more)
    back = node.args[0]
    g.integer(made, f"quantized.{name} ({packed.engine})")
    for old in dict.fromkeys((last, node)):
        g.replace(old, made)
    for left in (back, before.node):
        if isinstance(left, Node):
            g.erase_if_unused(left)
    return True


def _packed(context: Context, reading: Reading) -> PackedSpec | None:
    """What the weight of a linear function is packed from; None where it is no constant in 8 bits or half floats."""
    bias = reading.input("b")
    back = context.view.read(reading.input("w")) if isinstance(reading.input("w"), Node) else None
    if back is None or back.op is not ops.dequantize or not (bias is None or isinstance(bias, Param)):
        return None
    constant = None if bias is None else bias.tensor.detach()
    stored = context.view.read(back.inputs[0]) if isinstance(back.inputs[0], Node) else None
    if stored is not None and stored.op is ops.quantize and isinstance(stored.inputs[0], Param):
        weight, scale, zero = (value.tensor.detach() for value in stored.inputs[:3])
        axis = stored.attrs["axis"]
        if axis is None:
            codes = torch.quantize_per_tensor(weight, float(scale), int(zero), torch.qint8)
        else:
            codes = torch.quantize_per_channel(weight, scale.double(), zero.long(), axis, torch.qint8)
        return PackedSpec("linear", codes, constant)
    cast = stored.node if stored is not None else None
    if cast is not None and cast.op == "call_method" and cast.target == "to" and cast.args[1] is torch.float16:
        source = context.view.value(cast.args[0])
        if isinstance(source, Param):
            return PackedSpec("linear_fp16", source.tensor.detach().half().float(), constant, engine="fbgemm")
    return None
