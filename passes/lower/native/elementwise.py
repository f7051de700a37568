"""Ops with a range of their own and no weight: arithmetic, activations, normalization."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.graph import Param
from qfx.nn import intrinsic
from qfx.nn.constant import ExactConstant
from qfx.nn.intrinsic import quantized as fused
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_clamps, output, per_tensor_output
from qfx.passes.lower.native.weighted import KERNEL_KEY, clamp_codes
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Guard, Rule, rule
from qfx.patterns import Match, Reject
from qfx.patterns.catalogue import quantized as shapes
from qfx.spellings import opaque

GUARDS: tuple[Guard, ...] = (per_tensor_output, constant_clamps)
Q = torch.ops.quantized


def _finish(g: Rewriter, m: Match, y: Node, limits: Bounds, kernel: str) -> Node:
    y.meta[KERNEL_KEY] = kernel
    return clamp_codes(g, y, limits.beyond(*output(m)))


# -- addition and multiplication -----------------------------------------------------------------------------------
def _arithmetic(op: Op, *, number: bool) -> Rule:
    @rule(shapes.with_number(op) if number else shapes.binary(op), where=GUARDS)
    def lower_arithmetic(m: Match, g: Rewriter) -> Node:
        limits = bounds(m)
        relu = limits.low == 0.0
        name = f"{op.name}_relu" if relu else op.name
        other = g.packed(ExactConstant(float(m.c)), "_constant") if number else m.y
        y = g.call(getattr(Q, name), m.x, other, m.scale, m.zero_point)
        return _finish(g, m, y, Bounds(None if relu else limits.low, limits.high), f"quantized.{name}")

    return lower_arithmetic


# -- activations ---------------------------------------------------------------------------------------------------
# Kernels with the output's parameters built in: (scale, zero point) they always give.
BUILT_IN = {ops.tanh: (1 / 128, 128), ops.hardsigmoid: (1 / 256, 0), ops.sigmoid: (1 / 256, 0)}


def _has_built_in(m: Match) -> bool | Reject:
    wanted = BUILT_IN[m.op.op]
    if m.op.op is ops.sigmoid or output(m) == wanted:
        return True
    return Reject(f"the kernel of {m.op.op.name} gives scale {wanted[0]} and zero point {wanted[1]} only", m.op.node)


def _built_in(op: Op) -> Rule:
    @rule(shapes.unary(op), where=(*GUARDS, _has_built_in))
    def lower_fixed(m: Match, g: Rewriter) -> Node:
        if op is ops.sigmoid and output(m) != BUILT_IN[op]:
            y = g.call(Q.sigmoid, m.x, m.scale, m.zero_point)
        else:
            y = g.same(m.op, {m.op.inputs[0]: m.x})
        return _finish(g, m, y, bounds(m), f"quantized {op.name}")

    return lower_fixed


def _own(op: Op, kernel: Any, arguments: Any, *guards: Guard) -> Rule:
    @rule(shapes.unary(op), where=(*GUARDS, *guards))
    def lower_own(m: Match, g: Rewriter) -> Node:
        y = g.call(kernel, *arguments(m))
        return _finish(g, m, y, bounds(m), f"quantized.{op.name}")

    return lower_own


def _plain_elu(m: Match) -> bool | Reject:
    attrs = m.op.attrs
    if attrs["scale"] == 1.0 and attrs["input_scale"] == 1.0:
        return True
    return Reject("the kernel of elu has no scale besides alpha", m.op.node)


# -- normalization -------------------------------------------------------------------------------------------------
def _tensors(*names: str) -> Guard:
    def tensors(m: Match) -> bool | Reject:
        for name in names:
            value = getattr(m, name)
            if value is not None and not isinstance(value, Param):
                return Reject(f"{name} of {m.op.node} is computed", m.op.node)
        return True

    return tensors


def _whole_norm(m: Match) -> bool | Reject:
    missing = [name for name in ("mean", "var", "gamma", "beta") if getattr(m, name) is None]
    return not missing or Reject(f"the kernel of batch norm needs {', '.join(missing)}", m.op.node)


@rule(shapes.batch_norm, where=(*GUARDS, _tensors("mean", "var", "gamma", "beta"), _whole_norm))
def lower_batch_norm(m: Match, g: Rewriter) -> Node:
    """Batch norm on its own, as scale and shift of the codes."""
    y = g.call(Q.batch_norm, m.x, m.gamma, m.beta, m.mean, m.var, m.op.attrs["eps"], m.scale, m.zero_point)
    return _finish(g, m, y, bounds(m), "quantized.batch_norm")


@rule(shapes.layer_norm, where=(*GUARDS, _tensors("gamma", "beta")))
def lower_layer_norm(m: Match, g: Rewriter) -> Node:
    """Layer norm over the last dimensions."""
    attrs = m.op.attrs
    shape = list(attrs["normalized_shape"])
    y = g.call(Q.layer_norm, m.x, shape, m.gamma, m.beta, attrs["eps"], m.scale, m.zero_point)
    return _finish(g, m, y, bounds(m), "quantized.layer_norm")


def _bn_relu(cls: type[nn.Module], made: Any) -> Rule:
    @rule(shapes.module(opaque(cls)), where=GUARDS)
    def lower_bn_relu(m: Match, g: Rewriter) -> Node:
        path = str(m.op.node.target)
        module = made.from_reference(g.view.module(path), *output(m))
        y = g.module(module, m.x, at=path if g.sole_caller(path) else None, stem=path.replace(".", "_"))
        return _finish(g, m, y, bounds(m), "quantized.batch_norm_relu")

    return lower_bn_relu


ELEMENTWISE: tuple[Rule, ...] = (
    *(_arithmetic(op, number=number) for op in (ops.add, ops.mul) for number in (False, True)),
    *(_built_in(op) for op in BUILT_IN),
    _own(ops.hardswish, Q.hardswish, lambda m: (m.x, m.scale, m.zero_point)),
    _own(ops.elu, Q.elu, lambda m: (m.x, m.scale, m.zero_point, m.op.attrs["alpha"]), _plain_elu),
    _own(
        ops.leaky_relu,
        Q.leaky_relu,
        lambda m: (m.x, m.op.attrs["negative_slope"], False, m.scale, m.zero_point),
    ),
    lower_batch_norm,
    lower_layer_norm,
    _bn_relu(intrinsic.BNReLU2d, fused.BNReLU2d),
    _bn_relu(intrinsic.BNReLU3d, fused.BNReLU3d),
)
