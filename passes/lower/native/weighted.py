"""Convolutions, transposed convolutions and linear layers, as functions and as modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx.graph import Param
from qfx.kernels.engines import EngineChoice, LayerFacts, engine_for
from qfx.nn import intrinsic, quantized
from qfx.nn.intrinsic import quantized as fused
from qfx.nn.packing import PackedSpec
from qfx.nn.quantized import reference
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_clamps, output, per_tensor_output
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match, Reject
from qfx.patterns.catalogue.quantized import module as module_pattern
from qfx.patterns.catalogue.quantized import weighted_function
from qfx.patterns.catalogue.weighted import TRANSPOSED, WEIGHTED
from qfx.spellings import opaque

KERNEL_KEY = "qfx_kernel"

# Reference class -> (quantized class, quantized class with relu, what linear and convolutions are called in the table).
MODULES: dict[type[nn.Module], tuple[Any, Any, str]] = {
    reference.Linear: (quantized.Linear, fused.LinearReLU, "linear"),
    **{
        getattr(reference, f"Conv{n}d"): (getattr(quantized, f"Conv{n}d"), getattr(fused, f"ConvReLU{n}d"), f"conv{n}d")
        for n in (1, 2, 3)
    },
    **{
        getattr(reference, f"ConvTranspose{n}d"): (
            getattr(quantized, f"ConvTranspose{n}d"),
            None,
            f"conv_transpose{n}d",
        )
        for n in (1, 2, 3)
    },
}
FUSED = (intrinsic.LinearReLU, intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d)


def facts(op: str, weight: torch.Tensor, attrs: Any, *, per_channel: bool, symmetric: bool) -> LayerFacts:
    """What the engine table is told of a layer; `weight` in any form with the layer's shape."""
    if op == "linear":
        out, into = weight.shape
        return LayerFacts(op, into, out, per_channel=per_channel, symmetric_weight=symmetric)
    groups = attrs["groups"]
    first, second = weight.shape[:2]
    transposed = op.startswith("conv_transpose")
    return LayerFacts(
        op,
        in_channels=first if transposed else second * groups,
        out_channels=second * groups if transposed else first,
        groups=groups,
        kernel=tuple(weight.shape[2:]),
        stride=attrs["stride"],
        padding=attrs["padding"],
        dilation=attrs["dilation"],
        output_padding=attrs.get("output_padding", ()),
        per_channel=per_channel,
        symmetric_weight=symmetric,
    )


def numeric_padding(attrs: Any, kernel: Any) -> tuple[int, ...] | None:
    """Padding as numbers; None where ``"same"`` is not the same on both sides."""
    padding = attrs["padding"]
    if isinstance(padding, tuple):
        return padding
    if padding == "valid":
        return (0,) * len(kernel)
    total = [d * (k - 1) for d, k in zip(attrs["dilation"], kernel, strict=True)]
    return None if any(t % 2 for t in total) else tuple(t // 2 for t in total)


# -- functions -----------------------------------------------------------------------------------------------------
def _function_spec(m: Match) -> PackedSpec | Reject:
    op, attrs = m.op.op, dict(m.op.attrs)
    if not isinstance(m.w, Param) or m.w.tensor.dim() < 2:
        return Reject(f"the weight of {m.op.node} is computed", m.op.node)
    if m.b is not None and not isinstance(m.b, Param):
        return Reject(f"the bias of {m.op.node} is computed", m.op.node)
    if m.weight.attrs["dtype"] is not torch.qint8:
        return Reject(f"the kernels take weights of torch.qint8, not {m.weight.attrs['dtype']}", m.op.node)
    tensor = m.w.tensor.detach()
    if "padding" in attrs:
        padding = numeric_padding(attrs, tensor.shape[2:])
        if padding is None:
            return Reject("the kernels pad both sides alike; this 'same' padding does not", m.op.node)
        attrs["padding"] = padding
    scale, zero, axis = m.w_scale.tensor, m.w_zero_point.tensor, m.weight.attrs["axis"]
    if axis is None:
        weight = torch.quantize_per_tensor(tensor, float(scale), int(zero), torch.qint8)
    else:
        weight = torch.quantize_per_channel(tensor, scale.double(), zero.long(), axis, torch.qint8)
    layer = facts(op.name, tensor, attrs, per_channel=axis is not None, symmetric=not bool(zero.any()))
    choice = engine_for(layer)
    if not isinstance(choice, EngineChoice):
        return Reject(str(choice), m.op.node)
    bias = m.b.tensor.detach() if m.b is not None else None
    if op.name == "linear":
        return PackedSpec("linear", weight, bias, engine=choice.engine)
    return PackedSpec(
        op.name.replace("_transpose", ""),
        weight,
        bias,
        stride=attrs["stride"],
        padding=attrs["padding"],
        output_padding=attrs.get("output_padding", (0,) * len(attrs["stride"])),
        dilation=attrs["dilation"],
        groups=attrs["groups"],
        transposed=op in TRANSPOSED,
        engine=choice.engine,
    )


def _packable(m: Match) -> bool | Reject:
    spec = _function_spec(m)
    return spec if isinstance(spec, Reject) else True


def _function(op: Op) -> Rule:
    @rule(weighted_function(op), where=(per_tensor_output, constant_clamps, _packable))
    def lower_function(m: Match, g: Rewriter) -> Node:
        spec = _function_spec(m)
        assert isinstance(spec, PackedSpec)
        scale, zero = output(m)
        limits = bounds(m)
        relu = limits.low == 0.0 and op not in TRANSPOSED
        name = f"{op.name}_relu" if relu else op.name
        kernel = getattr(torch.ops.quantized, name)
        y = g.call(kernel, m.x, g.packed(spec), m.scale, m.zero_point)
        y.meta[KERNEL_KEY] = f"quantized.{name} ({spec.engine})"
        return clamp_codes(g, y, Bounds(None if relu else limits.low, limits.high).beyond(scale, zero))

    return lower_function


def clamp_codes(g: Rewriter, y: Node, limits: Bounds) -> Node:
    """Clamp a quantized tensor to what saturation does not give; nothing where nothing is left."""
    if limits == Bounds():
        return y
    clamped = g.call(torch.clamp, y, min=limits.low, max=limits.high)
    clamped.meta[KERNEL_KEY] = "clamp of codes"
    return clamped


# -- modules -------------------------------------------------------------------------------------------------------
def _module_parts(m: Match) -> tuple[Any, Any]:
    module: Any = m.view.module(str(m.op.node.target))
    return module, module[0] if type(module) in FUSED else module


def _module_engine(m: Match) -> EngineChoice | Reject:
    _, inner = _module_parts(m)
    if type(inner) not in MODULES:
        return Reject(f"{type(inner).__name__} is no reference module", m.op.node)
    if inner.weight_dtype is not torch.qint8:
        return Reject(f"the kernels take weights of torch.qint8, not {inner.weight_dtype}", m.op.node)
    if getattr(inner, "padding_mode", "zeros") not in ("zeros", "reflect"):
        return Reject(f"no kernel pads by {inner.padding_mode!r}", m.op.node)
    name = MODULES[type(inner)][2]
    attrs: dict[str, Any] = {}
    if name != "linear":
        attrs = {key: getattr(inner, key) for key in ("stride", "padding", "dilation", "groups")}
        attrs["output_padding"] = getattr(inner, "output_padding", ())
        padding = numeric_padding(attrs, inner.kernel_size)
        if padding is None:
            return Reject("the kernels pad both sides alike; this 'same' padding does not", m.op.node)
        attrs["padding"] = padding
    per_channel = inner.weight_qscheme not in (torch.per_tensor_affine,)
    symmetric = not bool(inner.weight_zero_point.any())
    choice = engine_for(facts(name, inner.weight, attrs, per_channel=per_channel, symmetric=symmetric))
    return choice if isinstance(choice, EngineChoice) else Reject(str(choice), m.op.node)


def _module_packable(m: Match) -> bool | Reject:
    choice = _module_engine(m)
    return choice if isinstance(choice, Reject) else True


def _module(cls: type[nn.Module]) -> Rule:
    @rule(module_pattern(opaque(cls)), where=(per_tensor_output, constant_clamps, _module_packable))
    def lower_module(m: Match, g: Rewriter) -> Node:
        module, inner = _module_parts(m)
        choice = _module_engine(m)
        assert isinstance(choice, EngineChoice)
        scale, zero = output(m)
        limits = bounds(m)
        plain, with_relu, name = MODULES[type(inner)]
        if inner is not module:
            limits = limits.then(Bounds(0.0))
        relu = limits.low == 0.0 and with_relu is not None
        # A class with relu takes a container that starts with the reference module.
        source = nn.Sequential(inner) if relu else inner
        made = (with_relu if relu else plain).from_reference(source, scale, zero, engine=choice.engine)
        path = str(m.op.node.target)
        at = path if g.sole_caller(path) else None
        y = g.module(made, m.x, at=at, stem=path.replace(".", "_"))
        y.meta[KERNEL_KEY] = f"quantized.{name}{'_relu' if relu else ''} ({choice.engine})"
        return clamp_codes(g, y, Bounds(None if relu else limits.low, limits.high).beyond(scale, zero))

    return lower_module


WEIGHTED_RULES = (
    *(_function(op) for op in WEIGHTED),
    *(_module(cls) for cls in (*MODULES, *FUSED)),
)
