"""Ops with a range of their own and no weight: arithmetic, activations, normalization."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.kernels.kernel import Kernel
from qfx.kernels.native import NATIVE
from qfx.nn import intrinsic, quantized
from qfx.nn.constant import ExactConstant
from qfx.nn.intrinsic import quantized as fused
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_clamps, output, per_tensor_output, relu_first
from qfx.passes.lower.native.weighted import clamp_codes
from qfx.passes.lower.roles import seen_shape
from qfx.passes.lower.site import supported
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Guard, Rule, rule
from qfx.patterns import Match
from qfx.patterns.catalogue import quantized as shapes
from qfx.reject import Reject
from qfx.spellings import opaque


def _guards(kernel: Kernel) -> tuple[Guard, ...]:
    return per_tensor_output, constant_clamps, supported(kernel)


def _finish(g: Rewriter, m: Match, y: Node, limits: Bounds, kernel: str) -> Node:
    g.integer(y, kernel)
    return clamp_codes(g, y, limits.beyond(*output(m)))


# -- addition and multiplication -----------------------------------------------------------------------------------
def _ordered(m: Match) -> tuple[Any, Any] | Reject:
    """The operands, that of the result's shape first: the kernels broadcast the second one only."""
    full, left, right = (seen_shape(m.view, value) for value in (m.out.node, m.x, m.y))
    if not full or left == full or not (left or right):
        return m.x, m.y
    if right == full or not right:
        return m.y, m.x
    if not left:
        return m.x, m.y
    return Reject(f"the kernel of {m.op.op.name} gives the shape of an operand, not {full} of {left} and {right}")


def _broadcast(m: Match) -> bool | Reject:
    ordered = _ordered(m)
    return Reject(ordered.reason, m.op.node) if isinstance(ordered, Reject) else True


def _arithmetic(op: Op, *, number: bool) -> Rule:
    kernel = NATIVE[op.name]
    shape, guards = (shapes.with_number(op), ()) if number else (shapes.binary(op), (_broadcast,))

    @rule(shape, where=(*_guards(kernel), *guards))
    def lower_arithmetic(m: Match, g: Rewriter) -> Node:
        limits = bounds(m)
        relu = limits.low == 0.0 and relu_first(m)
        pair = (m.x, g.packed(ExactConstant(float(m.c)), "_constant")) if number else _ordered(m)
        assert not isinstance(pair, Reject)
        y = g.call(kernel.with_relu if relu else kernel.call, *pair, m.scale, m.zero_point)
        left = Bounds(None if relu else limits.low, limits.high)
        return _finish(g, m, y, left, f"{kernel.name}{'_relu' if relu else ''}")

    return lower_arithmetic


# -- activations ---------------------------------------------------------------------------------------------------
# A module stays one: the class that takes its place, of those whose kernel knows the result's scale and zero point.
LAYERS: Mapping[Op, Any] = MappingProxyType(
    {ops.hardswish: quantized.Hardswish, ops.elu: quantized.ELU, ops.leaky_relu: quantized.LeakyReLU}
)
NORMS: Mapping[type[nn.Module], Any] = MappingProxyType(
    {
        nn.BatchNorm2d: quantized.BatchNorm2d,
        nn.BatchNorm3d: quantized.BatchNorm3d,
        nn.LayerNorm: quantized.LayerNorm,
        nn.InstanceNorm1d: quantized.InstanceNorm1d,
        nn.InstanceNorm2d: quantized.InstanceNorm2d,
        nn.InstanceNorm3d: quantized.InstanceNorm3d,
    }
)
_INSTANCE_DIMENSIONS = {nn.InstanceNorm1d: 1, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}


def _layer(m: Match, g: Rewriter, made: Any) -> Node:
    """The quantized form of the module a match calls, in its place."""
    path = str(m.op.node.target)
    module = made.from_reference(g.view.module(path), *output(m))
    return g.module(module, m.x, at=path if g.sole_caller(path) else None, stem=path.replace(".", "_"))


def _norm_class(m: Match, g: Rewriter) -> Any:
    """The class that takes the place of a norm spelled as a module; None where there is none."""
    return NORMS.get(type(g.view.module(str(m.op.node.target)))) if m.op.node.op == "call_module" else None


def _unary(op: Op) -> Rule:
    kernel = NATIVE[op.name]

    layer = LAYERS.get(op)

    @rule(shapes.unary(op), where=_guards(kernel))
    def lower_unary(m: Match, g: Rewriter) -> Node:
        if layer is not None and m.op.node.op == "call_module":
            y = _layer(m, g, layer)
        elif kernel.call is None or (op is ops.sigmoid and m.op.node.op == "call_module"):
            # The parameters of the result are those the call gives anyway
            y = g.same(m.op, {m.op.inputs[0]: m.x})
        else:
            y = g.call(kernel.call, *kernel.arrange(m.x, m.scale, m.zero_point, m.op.attrs))
        return _finish(g, m, y, bounds(m), kernel.name)

    return lower_unary


# -- normalization -------------------------------------------------------------------------------------------------
@rule(shapes.batch_norm, where=_guards(NATIVE["batch_norm"]))
def lower_batch_norm(m: Match, g: Rewriter) -> Node:
    """Batch norm on its own, as scale and shift of the codes."""
    kernel, layer = NATIVE["batch_norm"], _norm_class(m, g)
    if layer is not None:
        return _finish(g, m, _layer(m, g, layer), bounds(m), kernel.name)
    y = g.call(kernel.call, m.x, m.gamma, m.beta, m.mean, m.var, m.op.attrs["eps"], m.scale, m.zero_point)
    return _finish(g, m, y, bounds(m), kernel.name)


@rule(shapes.layer_norm, where=_guards(NATIVE["layer_norm"]))
def lower_layer_norm(m: Match, g: Rewriter) -> Node:
    """Layer norm over the last dimensions."""
    kernel, layer, attrs = NATIVE["layer_norm"], _norm_class(m, g), m.op.attrs
    if layer is not None:
        return _finish(g, m, _layer(m, g, layer), bounds(m), kernel.name)
    y = g.call(kernel.call, m.x, list(attrs["normalized_shape"]), m.gamma, m.beta, attrs["eps"], m.scale, m.zero_point)
    return _finish(g, m, y, bounds(m), kernel.name)


def _batch_of_instances(m: Match) -> bool | Reject:
    """Guard: a module that takes one sample, too, saw a batch."""
    node, shape = m.op.node, seen_shape(m.view, m.out.node)
    cls: Any = type(m.view.module(str(node.target))) if node.op == "call_module" else None
    if cls is None or not shape or len(shape) == _INSTANCE_DIMENSIONS[cls] + 2:
        return True
    return Reject(f"{node} gave a result of shape {shape}: the kernel takes batches, not samples", node)


@rule(shapes.instance_norm, where=(*_guards(NATIVE["instance_norm"]), _batch_of_instances))
def lower_instance_norm(m: Match, g: Rewriter) -> Node:
    """Instance norm by the statistics of its input."""
    kernel, layer = NATIVE["instance_norm"], _norm_class(m, g)
    if layer is not None:
        return _finish(g, m, _layer(m, g, layer), bounds(m), kernel.name)
    y = g.call(kernel.call, m.x, m.gamma, m.beta, m.op.attrs["eps"], m.scale, m.zero_point)
    return _finish(g, m, y, bounds(m), kernel.name)


def _is_module(m: Match) -> bool | Reject:
    return m.op.node.op == "call_module" or Reject(f"{m.op.node} is a function; the kernel is a module's", m.op.node)


@rule(shapes.prelu, where=(*_guards(NATIVE["prelu"]), _is_module))
def lower_prelu(m: Match, g: Rewriter) -> Node:
    """PReLU spelled as a module, its slopes in 8 bits."""
    path = str(m.op.node.target)
    made = quantized.PReLU.of_slopes(m.w.tensor.detach(), *output(m))
    y = g.module(made, m.x, at=path if g.sole_caller(path) else None, stem=path.replace(".", "_"))
    return _finish(g, m, y, bounds(m), NATIVE["prelu"].name)


@rule(shapes.unary(ops.softmax), where=(per_tensor_output, constant_clamps, _is_module))
def lower_softmax(m: Match, g: Rewriter) -> Node:
    """Softmax spelled as a module: one call, which reports list as float."""
    y = _layer(m, g, quantized.Softmax)
    return _floats_inside(m, g, y, "its kernel, quantized.softmax, takes exponentials of floats inside")


# -- products of two values ----------------------------------------------------------------------------------------


def _alike(m: Match) -> bool | Reject:
    ranks = [len(seen_shape(m.view, value)) for value in (m.x, m.y)]
    if ranks[0] == ranks[1] >= 2:
        return True
    return Reject(f"the kernel of matmul takes matrices of one rank, not of {ranks[0]} and {ranks[1]}", m.op.node)


@rule(shapes.binary(ops.matmul), where=(per_tensor_output, constant_clamps, _alike))
def lower_matmul(m: Match, g: Rewriter) -> Node:
    """A product of two values: one call, which reports list as float."""
    y = g.call(torch.ops.quantized.matmul, m.x, m.y, m.scale, m.zero_point)
    return _floats_inside(m, g, y, "its kernel, quantized.matmul, multiplies floats inside")


def _floats_inside(m: Match, g: Rewriter, y: Node, reason: str) -> Node:
    plan: Any = getattr(g.gm, "plan", {})
    plan["float"] = {**plan.get("float", {}), y.name: reason}
    return clamp_codes(g, y, bounds(m).beyond(*output(m)))


def _bn_relu(cls: type[nn.Module], made: Any) -> Rule:
    @rule(shapes.module(opaque(cls)), where=(per_tensor_output, constant_clamps))
    def lower_bn_relu(m: Match, g: Rewriter) -> Node:
        return _finish(g, m, _layer(m, g, made), bounds(m), f"{NATIVE['batch_norm'].name}_relu")

    return lower_bn_relu


ELEMENTWISE: tuple[Rule, ...] = (
    *(_arithmetic(op, number=number) for op in (ops.add, ops.mul) for number in (False, True)),
    *(_unary(op) for op in (ops.sigmoid, ops.tanh, ops.hardsigmoid, ops.hardswish, ops.elu, ops.leaky_relu)),
    lower_batch_norm,
    lower_layer_norm,
    lower_instance_norm,
    lower_prelu,
    lower_softmax,
    lower_matmul,
    _bn_relu(intrinsic.BNReLU2d, fused.BNReLU2d),
    _bn_relu(intrinsic.BNReLU3d, fused.BNReLU3d),
)
