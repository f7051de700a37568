"""Convolutions and linear layers of plain integers, with the clamp or the addition that follows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import Node

from qfx import ops
from qfx.kernels import onednn
from qfx.kernels.kernel import KernelSite
from qfx.kernels.onednn.kernels import WEIGHTED as KERNELS
from qfx.nn import intrinsic
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_clamps, output, per_tensor_output
from qfx.passes.lower.native.weighted import ADDED, FUSED, MODULES, function_site, module_parts, module_site
from qfx.passes.lower.site import batched, constant, not_broadcast
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match, Pattern
from qfx.patterns.catalogue import quantized as shapes
from qfx.qparams import QParams, quantize
from qfx.reject import Reject
from qfx.spellings import opaque

Weight = tuple[Tensor, Tensor, Tensor | None]
"""Codes, scales and bias."""

SiteOf = Callable[[Match], KernelSite | Reject]
WeightOf = Callable[[Match], Weight]


def _function_weight(m: Match) -> Weight:
    scale, zero, axis = m.w_scale.tensor, m.w_zero_point.tensor, m.weight.attrs["axis"]
    return _codes(m.w.tensor.detach(), scale, zero, axis), scale, constant(m.b)


def _module_weight(m: Match) -> Weight:
    _, inner = module_parts(m)
    axis = None if inner.weight_qscheme is torch.per_tensor_affine else inner.weight_axis_int
    weight, bias = inner.weight.detach(), inner.bias
    codes = _codes(weight, inner.weight_scale, inner.weight_zero_point, axis)
    return codes, inner.weight_scale, None if bias is None else bias.detach().clone()


def _codes(weight: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
    how = QParams(scale, zero_point, axis, torch.int8)
    return quantize(weight, how, saturate_storage=True)


def _supported(site_of: SiteOf, *, add: bool) -> Callable[[Match], bool | Reject]:
    def supports(m: Match) -> bool | Reject:
        site = site_of(m)
        if isinstance(site, Reject):
            return Reject(site.reason, m.op.node)
        kernel = KERNELS.get(site.op)
        if kernel is None or (add and kernel.with_add is None):
            return Reject(f"onednn has no {site.op}{' with an addition' if add else ''}", m.op.node)
        refused = kernel.supports(site)
        return True if refused is None else Reject(refused.reason, m.op.node)

    return supports


def _inside(m: Match) -> Bounds:
    """The relu of a fused container."""
    fused = m.op.node.op == "call_module" and type(module_parts(m)[0]) in FUSED
    return Bounds(0.0) if fused else Bounds()


def _alone(pattern: Pattern, site_of: SiteOf, weight_of: WeightOf) -> Rule:
    guards = (per_tensor_output, constant_clamps, batched("out", linear=False), _supported(site_of, add=False))

    @rule(pattern, where=guards)
    def lower_weighted(m: Match, g: Rewriter) -> Node:
        site = site_of(m)
        assert isinstance(site, KernelSite)
        kernel, limits = KERNELS[site.op], bounds(m).then(_inside(m)).beyond(*output(m))
        packed = g.packed(kernel.pack(site, *weight_of(m)))
        inside = limits if kernel.bounded else Bounds()
        y = g.call(kernel.call, m.x, m.x_scale, m.x_zero_point, packed, m.scale, m.zero_point, **inside.named())
        g.integer(y, kernel.name, kernel.sums(site))
        if inside == limits:
            return y
        clamped = g.call(onednn.clamp, y, m.scale, m.zero_point, **limits.named())
        g.integer(clamped, "integer clamp")
        return clamped

    return lower_weighted


# -- with the addition that follows --------------------------------------------------------------------------------
def _only_relu(m: Match) -> bool | Reject:
    """onednn's sum is followed by relu or by nothing; what else saturation does not give is left to another rule."""
    rest = bounds(m).beyond(*output(m))
    return (rest.high is None and rest.low in (None, 0.0)) or Reject("onednn's sum takes no clamp but relu", m.sum.node)


def _with_add(pattern: Pattern, site_of: SiteOf, weight_of: WeightOf) -> Rule:
    shaped = (batched("inside", linear=False), not_broadcast("inside"))
    guards = (per_tensor_output, constant_clamps, *shaped, _supported(site_of, add=True), _only_relu)

    @rule(pattern, where=guards)
    def lower_weighted_add(m: Match, g: Rewriter) -> Node:
        site = site_of(m)
        assert isinstance(site, KernelSite)
        kernel = KERNELS[site.op]
        packed = g.packed(kernel.pack(site, *weight_of(m)))
        how = {"relu": True} if bounds(m).beyond(*output(m)).low is not None else {}
        layer, other = (m.x, m.x_scale, m.x_zero_point, packed), (m.y, m.y_scale, m.y_zero)
        y = g.call(kernel.with_add, *layer, *other, m.scale, m.zero_point, **how)
        return g.integer(y, f"{kernel.name}_add", kernel.sums(site))

    return lower_weighted_add


def _relu_of(m: Match) -> Bounds:
    """The clamps after a fused addition, its own relu first."""
    inside = Bounds(0.0) if type(module_parts(m)[0]) is intrinsic.ConvAddReLU2d else Bounds()
    return inside.then(bounds(m)).beyond(*output(m))


def _relu_or_nothing(m: Match) -> bool | Reject:
    rest = _relu_of(m)
    return (rest.high is None and rest.low in (None, 0.0)) or Reject("onednn's sum takes no clamp but relu", m.op.node)


def _fused_addition(cls: type[nn.Module]) -> Rule:
    shaped = (batched("out", linear=False), not_broadcast("y"))
    guards = (per_tensor_output, constant_clamps, *shaped, _supported(module_site, add=True), _relu_or_nothing)

    @rule(shapes.module_of_two(opaque(cls)), where=guards)
    def lower_fused_addition(m: Match, g: Rewriter) -> Node:
        site = module_site(m)
        assert isinstance(site, KernelSite)
        kernel = KERNELS[site.op]
        packed = g.packed(kernel.pack(site, *_module_weight(m)))
        how = {"relu": True} if _relu_of(m).low is not None else {}
        layer, other = (m.x, m.x_scale, m.x_zero_point, packed), (m.y, m.y_scale, m.y_zero)
        y = g.call(kernel.with_add, *layer, *other, m.scale, m.zero_point, **how)
        return g.integer(y, f"{kernel.name}_add", kernel.sums(site))

    return lower_fused_addition


_OPS: tuple[Op, ...] = (ops.linear, ops.conv1d, ops.conv2d, ops.conv3d)
_CLASSES: tuple[type[nn.Module], ...] = tuple(cls for cls, (op, _, _) in MODULES.items() if op in KERNELS)
WEIGHTED_RULES: tuple[Rule, ...] = (
    *(_with_add(shapes.weighted_function_add(op), function_site, _function_weight) for op in (ops.linear, ops.conv2d)),
    *(
        _with_add(shapes.module_add(opaque(cls)), module_site, _module_weight)
        for cls in _CLASSES
        if MODULES[cls][0] in ("linear", "conv2d")
    ),
    *map(_fused_addition, ADDED),
    *(_alone(shapes.weighted_function(op), function_site, _function_weight) for op in _OPS),
    *(_alone(shapes.module(opaque(cls)), module_site, _module_weight) for cls in (*_CLASSES, *FUSED)),
)
