"""Sums, products, tables of functions and everything that keeps its input's parameters, on plain integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from qfx import ops
from qfx.graph import Reading
from qfx.kernels import onednn
from qfx.kernels.codes import kept_sizes
from qfx.ops import Op
from qfx.passes.lower.codes import Bounds, bounds, constant_bounds, constant_clamps, numbers, output, per_tensor_output
from qfx.passes.lower.native.moves import KEEPING
from qfx.passes.lower.parameters import quantized_items, same_parameters
from qfx.passes.lower.site import batched
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Guard, Rule, rule
from qfx.patterns import Match
from qfx.patterns.catalogue import quantized as shapes
from qfx.reject import Reject

GUARDS: tuple[Guard, ...] = (per_tensor_output, constant_clamps)

TABLES = (ops.sigmoid, ops.tanh, ops.hardsigmoid, ops.hardswish, ops.elu, ops.leaky_relu)
"""Functions of one value; any such op the backend config lists can be added."""


# -- two tensors ---------------------------------------------------------------------------------------------------
def _arithmetic(op: Op, function: Callable[..., Tensor]) -> Rule:
    @rule(shapes.binary(op), where=GUARDS)
    def lower_arithmetic(m: Match, g: Rewriter) -> Node:
        left, right = (m.x, m.x_scale, m.x_zero_point), (m.y, m.y_scale, m.y_zero_point)
        y = g.call(function, *left, *right, m.scale, m.zero_point, **bounds(m).beyond(*output(m)).named())
        return g.integer(y, f"integer {op.name}")

    return lower_arithmetic


# -- one tensor: a table -------------------------------------------------------------------------------------------
def _table(m: Match, g: Rewriter, function: Callable[[Tensor], Tensor], name: str) -> Node:
    limits = bounds(m)

    def clamped(values: Tensor) -> Tensor:
        found = function(values)
        return found if limits == Bounds() else found.clamp(limits.low, limits.high)

    table = onednn.table_of(clamped, *numbers(m.x_scale, m.x_zero_point), *output(m))
    return g.integer(g.call(onednn.lookup, m.x, g.attribute("_table", table)), f"table of {name}")


def _function(m: Match) -> Callable[[Tensor], Tensor]:
    """The float op of a match as a function of its tensor."""
    reading: Reading = m.op
    node = reading.node

    def call(values: Tensor) -> Tensor:
        args, kwargs = ([values if isinstance(v, Node) else v for v in node.args], dict(node.kwargs))
        kwargs = {name: values if isinstance(v, Node) else v for name, v in kwargs.items()}
        if node.op == "call_module":
            called: Any = m.view.module(str(node.target))
        else:
            called = getattr(torch.Tensor, str(node.target)) if node.op == "call_method" else node.target
        return called(*args, **kwargs)  # type: ignore[no-any-return]

    return call


def _one_tensor(m: Match) -> bool | Reject:
    return len(m.op.node.all_input_nodes) == 1 or Reject(f"{m.op.node} is computed from several values", m.op.node)


def _unary(op: Op) -> Rule:
    @rule(shapes.unary(op), where=(*GUARDS, _one_tensor))
    def lower_unary(m: Match, g: Rewriter) -> Node:
        with torch.no_grad():
            return _table(m, g, _function(m), op.name)

    return lower_unary


def _with_number(op: Op, function: Callable[[Tensor, float], Tensor]) -> Rule:
    @rule(shapes.with_number(op), where=GUARDS)
    def lower_with_number(m: Match, g: Rewriter) -> Node:
        number = float(m.c)
        return _table(m, g, lambda values: function(values, number), f"{op.name} of {number:g}")

    return lower_with_number


# -- the input's parameters ----------------------------------------------------------------------------------------
def _clamp(op: Op) -> Rule:
    @rule(shapes.same(op), where=(per_tensor_output, constant_bounds, same_parameters))
    def lower_clamp(m: Match, g: Rewriter) -> Node:
        limits = Bounds.of(m.op).named()
        return g.integer(g.call(onednn.clamp, m.x, m.scale, m.zero_point, **limits), "integer clamp")

    return lower_clamp


def _constant_arguments(m: Match) -> bool | Reject:
    computed = [name for name, value in m.op.attrs.items() if isinstance(value, Node)]
    return Reject(f"{', '.join(computed)} of {m.op.node} is computed", m.op.node) if computed else True


Arguments = Callable[[Match], tuple[tuple[Any, ...], dict[str, Any]]]


def _own(op: Op, function: Callable[..., Tensor], arguments: Arguments, *guards: Guard) -> Rule:
    @rule(shapes.same(op), where=(per_tensor_output, _constant_arguments, *guards, same_parameters))
    def lower_own(m: Match, g: Rewriter) -> Node:
        more, named = arguments(m)
        return g.integer(g.call(function, m.x, *more, **named), f"integer {op.name}")

    return lower_own


def _max_pool(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    return (), {name: m.op.attrs[name] for name in names}


def _avg_pool(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    return (m.zero_point,), {name: m.op.attrs[name] for name in names}


def _adaptive(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (m.zero_point, m.op.attrs["output_size"]), {}


def _adaptive_max(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (kept_sizes(m.op.attrs["output_size"]),), {}


def _mean(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (m.zero_point, m.op.attrs["dim"]), {"keepdim": m.op.attrs["keepdim"]}


def _pad(m: Match) -> tuple[tuple[Any, ...], dict[str, Any]]:
    attrs = m.op.attrs
    return (m.scale, m.zero_point, attrs["pad"]), {"mode": attrs["mode"], "value": attrs["value"]}


def _nearest(m: Match) -> bool | Reject:
    mode = m.op.attrs["mode"]
    return mode == "nearest" or Reject(f"no integer kernel interpolates by {mode!r}", m.op.node)


CLAMPS = (ops.relu, ops.relu6, ops.hardtanh, ops.clamp)
POOLS = (
    *(_own(op, onednn.max_pool, _max_pool, batched("out")) for op in (ops.max_pool1d, ops.max_pool2d, ops.max_pool3d)),
    *(_own(op, onednn.avg_pool, _avg_pool) for op in (ops.avg_pool1d, ops.avg_pool2d, ops.avg_pool3d)),
    *(
        _own(op, onednn.adaptive_avg_pool, _adaptive)
        for op in (ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d, ops.adaptive_avg_pool3d)
    ),
    *(
        _own(op, onednn.adaptive_max_pool, _adaptive_max)
        for op in (ops.adaptive_max_pool1d, ops.adaptive_max_pool2d, ops.adaptive_max_pool3d)
    ),
    _own(ops.mean, onednn.mean, _mean),
)


def _moved(op: Op, *guards: Guard) -> Rule:
    """What only moves values: the float op's own call on the codes."""

    @rule(shapes.same(op), where=(per_tensor_output, *guards, same_parameters))
    def lower_moved(m: Match, g: Rewriter) -> Node:
        return g.integer(g.same(m.op, {m.back.node: m.x}), f"integer {op.name}")

    return lower_moved


@rule(shapes.gathered(ops.cat), where=(per_tensor_output, quantized_items))
def lower_cat(m: Match, g: Rewriter) -> Node:
    """Concatenation; inputs in other parameters are requantized."""
    items = [m.view.read(item).inputs for item in m.xs]
    columns: list[list[Any]] = [list(column) for column in zip(*items, strict=True)]
    y = g.call(onednn.cat, *columns, m.scale, m.zero_point, dim=m.op.attrs["dim"])
    return g.integer(y, "integer cat")


@rule(shapes.gathered(ops.stack), where=(per_tensor_output, quantized_items))
def lower_stack(m: Match, g: Rewriter) -> Node:
    """Stacking of values with the same parameters."""
    y = g.same(m.op, {item: m.view.read(item).inputs[0] for item in m.xs})
    return g.integer(y, "integer stack")


@rule(shapes.requantized, where=(per_tensor_output,))
def requantize(m: Match, g: Rewriter) -> Node:
    """Back to float and at once to integers: nothing, or other parameters."""
    if numbers(m.x_scale, m.x_zero_point) == output(m):
        return m.x  # type: ignore[no-any-return]
    y = g.call(onednn.requantize, m.x, m.x_scale, m.x_zero_point, m.scale, m.zero_point)
    return g.integer(y, "integer requantize")


_DONE = (*CLAMPS, ops.mean, ops.pad, ops.interpolate)
ELEMENTWISE: tuple[Rule, ...] = (
    _arithmetic(ops.add, onednn.add),
    _arithmetic(ops.mul, onednn.mul),
    _with_number(ops.add, torch.add),
    _with_number(ops.mul, torch.mul),
    *(_unary(op) for op in TABLES),
    *(_clamp(op) for op in CLAMPS),
    *POOLS,
    _own(ops.pad, onednn.pad, _pad),
    _moved(ops.interpolate, _nearest),
    *(_moved(op) for op in KEEPING if op not in _DONE and "pool" not in op.name),
    lower_cat,
    lower_stack,
    requantize,
)
