"""Convolutions, transposed convolutions and linear layers, as functions and as modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx import layout
from qfx.graph import Param
from qfx.kernels import codes
from qfx.kernels.kernel import KernelSite
from qfx.kernels.sums import sums
from qfx.kernels.weighted import WEIGHTED as KERNELS
from qfx.kernels.weighted import WeightedKernel, layer_facts
from qfx.nn import intrinsic, quantized
from qfx.nn.intrinsic import quantized as fused
from qfx.nn.quantized import reference
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_clamps, output, per_tensor_output, relu_first
from qfx.passes.lower.site import batched, constant, supported
from qfx.passes.reach import reach_of
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match
from qfx.patterns.catalogue.quantized import module as module_pattern
from qfx.patterns.catalogue.quantized import weighted_function
from qfx.patterns.catalogue.weighted import WEIGHTED
from qfx.reject import Reject
from qfx.spellings import opaque

# Reference class -> (canonical op, quantized class, quantized class with relu).
MODULES: dict[type[nn.Module], tuple[str, Any, Any]] = {
    reference.Linear: ("linear", quantized.Linear, fused.LinearReLU),
    **{
        getattr(reference, f"Conv{n}d"): (f"conv{n}d", getattr(quantized, f"Conv{n}d"), getattr(fused, f"ConvReLU{n}d"))
        for n in (1, 2, 3)
    },
    **{
        getattr(reference, name): (f"conv_transpose{n}d", getattr(quantized, name), None)
        for n, name in ((n, f"ConvTranspose{n}d") for n in (1, 2, 3))
    },
}
FUSED = (intrinsic.LinearReLU, intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d)
ADDED: tuple[type[nn.Module], ...] = (intrinsic.ConvAdd2d, intrinsic.ConvAddReLU2d)
CONTAINERS = (*FUSED, *ADDED, intrinsic.LinearLeakyReLU, intrinsic.LinearTanh)


_GUARDS = (per_tensor_output, constant_clamps, batched("out"))


# -- functions -----------------------------------------------------------------------------------------------------
def function_site(m: Match) -> KernelSite | Reject:
    """What a kernel is told of a layer spelled as a function."""
    op, attrs = m.op.op.name, m.op.attrs
    if not isinstance(m.w, Param) or m.w.tensor.dim() < 2:
        return Reject(f"the weight of {m.op.node} is computed")
    if m.b is not None and not isinstance(m.b, Param):
        return Reject(f"the bias of {m.op.node} is computed")
    axis, symmetric = _axis(m.weight.attrs["axis"], m.w.tensor), not bool(m.w_zero_point.tensor.any())
    shape, most = tuple(m.w.tensor.shape), reach_of(m.view, m.x).inside
    layer = layer_facts(op, shape, attrs, per_channel=axis is not None, symmetric=symmetric, most=most)
    return KernelSite(op, attrs, output(m), layer, m.weight.attrs["dtype"], axis)


def _axis(axis: int | None, weight: torch.Tensor) -> int | None:
    """The axis of a weight's scales, counted from the front."""
    return None if axis is None else axis % weight.dim()


def function_weight(m: Match) -> torch.Tensor:
    """The weight's codes, as a quantized tensor."""
    tensor, scale, zero = m.w.tensor.detach(), m.w_scale.tensor, m.w_zero_point.tensor
    axis = m.weight.attrs["axis"]
    if axis is None:
        return torch.quantize_per_tensor(tensor, float(scale), int(zero), torch.qint8)
    return torch.quantize_per_channel(tensor, scale.double(), zero.long(), axis, torch.qint8)


def _function(op: Op) -> Rule:
    kernel = KERNELS[op.name]

    @rule(weighted_function(op), where=(*_GUARDS, supported(kernel, function_site)))
    def lower_function(m: Match, g: Rewriter) -> Node:
        site = function_site(m)
        assert isinstance(site, KernelSite)
        spec, limits = kernel.pack(site, function_weight(m), constant(m.b)), bounds(m)
        relu = limits.low == 0.0 and relu_first(m) and kernel.with_relu is not None
        y = g.call(kernel.with_relu if relu else kernel.call, m.x, g.packed(spec), m.scale, m.zero_point)
        _say(g, y, kernel, site, str(spec.engine), relu=relu)
        y = y if relu else _with_relu(m, g, y)
        return clamp_codes(g, y, Bounds(None if relu else limits.low, limits.high).beyond(*output(m)))

    return lower_function


def _say(g: Rewriter, y: Node, kernel: WeightedKernel, site: KernelSite, engine: str, *, relu: bool) -> None:
    assert site.layer is not None
    g.integer(y, f"{kernel.name}{'_relu' if relu else ''} ({engine})", sums(engine, site.layer))


def _with_relu(m: Match, g: Rewriter, y: Node) -> Node:
    """A result with the relu that no kernel takes in. Saturation does what it does; the original's graphs have it."""
    if not layout.as_original or not relu_first(m):
        return y
    return g.integer(g.same(m.first_clamp, {m.first_clamp.inputs[0]: y}), "quantized relu")


def clamp_codes(g: Rewriter, y: Node, limits: Bounds) -> Node:
    """Clamp a quantized tensor to what saturation does not give; nothing where nothing is left."""
    if limits == Bounds():
        return y
    # Fresh from its kernel, `y` has no other reader.
    clamped = g.call(codes.clamp, y, **limits.named(), reuse=True)
    g.integer(clamped, "clamp of codes")
    return clamped


# -- modules -------------------------------------------------------------------------------------------------------
def module_parts(m: Match) -> tuple[Any, Any]:
    """The module a match calls, and the reference module in it."""
    return m.once(_module_parts)


def _module_parts(m: Match) -> tuple[Any, Any]:
    module: Any = m.view.module(str(m.op.node.target))
    return module, next(iter(module._modules.values())) if type(module) in CONTAINERS else module


def module_site(m: Match) -> KernelSite | Reject:
    """What a kernel is told of a layer spelled as a module."""
    return m.once(_module_site)


def _module_site(m: Match) -> KernelSite | Reject:
    _, inner = module_parts(m)
    if type(inner) not in MODULES:
        return Reject(f"{type(inner).__name__} is no reference module")
    op = MODULES[type(inner)][0]
    own = vars(inner)
    attrs = {name: own[name] for name in _GEOMETRY if name in own}
    per_tensor = inner.weight_qscheme is torch.per_tensor_affine
    axis = _axis(None if per_tensor else inner.weight_axis_int, inner.weight)
    weight, zero_point = inner._parameters["weight"], inner._buffers["weight_zero_point"]
    symmetric = not (bool(zero_point.any()) if zero_point.numel() > 1 else zero_point.item())
    shape, most = tuple(weight.shape), reach_of(m.view, m.x).inside
    layer = layer_facts(op, shape, attrs, per_channel=not per_tensor, symmetric=symmetric, most=most)
    return KernelSite(op, attrs, output(m), layer, inner.weight_dtype, axis)


_GEOMETRY = frozenset({"stride", "padding", "dilation", "groups", "output_padding", "padding_mode"})


def _kernel_of(m: Match) -> WeightedKernel:
    return KERNELS[MODULES[type(module_parts(m)[1])][0]]


def _module_supported(m: Match) -> bool | Reject:
    site = module_site(m)
    refused = site if isinstance(site, Reject) else _kernel_of(m).supports(site)
    return True if refused is None else Reject(refused.reason, m.op.node)


def _module(cls: type[nn.Module]) -> Rule:
    @rule(module_pattern(opaque(cls)), where=(*_GUARDS, _module_supported))
    def lower_module(m: Match, g: Rewriter) -> Node:
        module, inner = module_parts(m)
        kernel, site = _kernel_of(m), module_site(m)
        assert isinstance(site, KernelSite)
        choice: Any = kernel.engine(site)
        limits = bounds(m)
        _, plain, with_relu = MODULES[type(inner)]
        if inner is not module:
            limits = limits.then(Bounds(0.0))
        relu = limits.low == 0.0 and (inner is not module or relu_first(m)) and with_relu is not None
        # A class with relu takes a container that starts with the reference module.
        source = inner
        if relu:
            source = module if inner is not module else nn.Sequential(inner)
        made = (with_relu if relu else plain).from_reference(source, *output(m), engine=choice.engine)
        path = str(m.op.node.target)
        at = path if g.sole_caller(path) else None
        y = g.module(made, m.x, at=at, stem=path.replace(".", "_"))
        _say(g, y, kernel, site, choice.engine, relu=relu)
        y = y if relu else _with_relu(m, g, y)
        return clamp_codes(g, y, Bounds(None if relu else limits.low, limits.high).beyond(*output(m)))

    return lower_module


WEIGHTED_RULES = (
    *(_function(op) for op in WEIGHTED),
    *(_module(cls) for cls in (*MODULES, *FUSED)),
)
