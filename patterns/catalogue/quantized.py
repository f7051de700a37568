"""Patterns of a reference graph: dequantize, an op, quantize.

``x_scale`` and ``x_zero_point`` are there where the tensor is a plain integer one, whose parameters are arguments of
dequantize; torch's quantized tensors carry theirs.
"""

from __future__ import annotations

from typing import Any

from qfx import ops
from qfx.graph import Reading
from qfx.ops import Op
from qfx.patterns.language import Pattern, pattern
from qfx.patterns.terms import AnyOf, any_of


def clamped(y: Any, name: str) -> AnyOf:
    """`y`, or a clamp of it; ``m.<name>`` is the clamp, or None."""
    return any_of(
        none=y,
        relu=ops.relu(y).named(name),
        relu6=ops.relu6(y).named(name),
        hardtanh=ops.hardtanh(y).named(name),
        clamp=ops.clamp(y).named(name),
    )


def clamps(y: Any) -> AnyOf:
    """Up to two clamps after `y`."""
    return clamped(clamped(y, "first_clamp"), "second_clamp")


def weighted_function(op: Op) -> Pattern:
    """A weighted op spelled as a function, its weight quantized in the graph."""

    @pattern
    def quantized_function(  # type: ignore[no-untyped-def]
        x, w, w_scale, w_zero_point, scale, zero_point, x_scale=None, x_zero_point=None, b=None
    ):
        weight = ops.dequantize(ops.quantize(w, w_scale, w_zero_point).named("weight"))
        y = op(ops.dequantize(x, x_scale, x_zero_point), weight, b).named("op")
        return ops.quantize(clamps(y), scale, zero_point).named("out")

    return quantized_function


def module(op: Op) -> Pattern:
    """A module of one input (`op` is the class's opaque op), then clamps."""

    @pattern
    def quantized_module(x, scale, zero_point, x_scale=None, x_zero_point=None):  # type: ignore[no-untyped-def]
        y = op(ops.dequantize(x, x_scale, x_zero_point)).named("op")
        return ops.quantize(clamps(y), scale, zero_point).named("out")

    return quantized_module


def module_of_two(op: Op) -> Pattern:
    """A module of two inputs (`op` is the class's opaque op), then clamps."""

    @pattern
    def quantized_module_of_two(  # type: ignore[no-untyped-def]
        x, y, scale, zero_point, x_scale=None, x_zero_point=None, y_scale=None, y_zero=None
    ):
        z = op(ops.dequantize(x, x_scale, x_zero_point), ops.dequantize(y, y_scale, y_zero)).named("op")
        return ops.quantize(clamps(z), scale, zero_point).named("out")

    return quantized_module_of_two


def binary(op: Op) -> Pattern:
    """An op of two tensors, then clamps."""

    @pattern
    def quantized_binary(  # type: ignore[no-untyped-def]
        x, y, scale, zero_point, x_scale=None, x_zero_point=None, y_scale=None, y_zero_point=None
    ):
        z = op(ops.dequantize(x, x_scale, x_zero_point), ops.dequantize(y, y_scale, y_zero_point)).named("op")
        return ops.quantize(clamps(z), scale, zero_point).named("out")

    return quantized_binary


def with_number(op: Op) -> Pattern:
    """An op of a tensor and a number, then clamps."""

    @pattern
    def quantized_with_number(x, c, scale, zero_point, x_scale=None, x_zero_point=None):  # type: ignore[no-untyped-def]
        z = op(ops.dequantize(x, x_scale, x_zero_point), c.where(_is_number)).named("op")
        return ops.quantize(clamps(z), scale, zero_point).named("out")

    return quantized_with_number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unary(op: Op) -> Pattern:
    """An op of one tensor, then clamps."""

    @pattern
    def quantized_unary(x, scale, zero_point, x_scale=None, x_zero_point=None):  # type: ignore[no-untyped-def]
        y = op(ops.dequantize(x, x_scale, x_zero_point)).named("op")
        return ops.quantize(clamps(y), scale, zero_point).named("out")

    return quantized_unary


@pattern
def batch_norm(x, scale, zero_point, mean=None, var=None, gamma=None, beta=None):  # type: ignore[no-untyped-def]
    """Batch norm that nothing could take in, then clamps."""
    y = ops.batch_norm(ops.dequantize(x), gamma, beta, mean, var).named("op")
    return ops.quantize(clamps(y), scale, zero_point).named("out")


@pattern
def layer_norm(x, scale, zero_point, gamma=None, beta=None):  # type: ignore[no-untyped-def]
    """Layer norm, with or without scale and shift."""
    y = ops.layer_norm(ops.dequantize(x), gamma, beta).named("op")
    return ops.quantize(clamps(y), scale, zero_point).named("out")


@pattern
def instance_norm(x, scale, zero_point, gamma=None, beta=None, mean=None, var=None):  # type: ignore[no-untyped-def]
    """Instance norm, with or without scale and shift, then clamps."""
    y = ops.instance_norm(ops.dequantize(x), gamma, beta, mean, var).named("op")
    return ops.quantize(clamps(y), scale, zero_point).named("out")


@pattern
def prelu(x, w, scale, zero_point):  # type: ignore[no-untyped-def]
    """PReLU with constant slopes, then clamps."""
    y = ops.prelu(ops.dequantize(x), w).named("op")
    return ops.quantize(clamps(y), scale, zero_point).named("out")


def same(op: Op) -> Pattern:
    """An op whose result has its input's parameters."""

    @pattern
    def quantized_same(x, scale, zero_point, x_scale=None, x_zero_point=None):  # type: ignore[no-untyped-def]
        y = op(ops.dequantize(x, x_scale, x_zero_point).named("back")).named("op")
        return ops.quantize(y, scale, zero_point).named("out")

    return quantized_same


def gathered(op: Op) -> Pattern:
    """An op of a list of tensors (cat, stack)."""

    @pattern
    def quantized_list(xs, scale, zero_point):  # type: ignore[no-untyped-def]
        return ops.quantize(op(xs).named("op"), scale, zero_point).named("out")

    return quantized_list


@pattern
def requantized(x, scale, zero_point, x_scale=None, x_zero_point=None):  # type: ignore[no-untyped-def]
    """Back to float and at once to integers again."""
    return ops.quantize(ops.dequantize(x, x_scale, x_zero_point), scale, zero_point).named("out")


def _read_once(reading: Reading) -> bool:
    return len(reading.node.users) == 1


def weighted_function_add(op: Op) -> Pattern:
    """`weighted_function` whose result, quantized, is added to another tensor and read by nothing else."""

    @pattern
    def quantized_function_add(  # type: ignore[no-untyped-def]
        x, w, w_scale, w_zero_point, x_scale, x_zero_point, inner, inner_zero, y, y_scale, y_zero, scale, zero_point,
        b=None, again=None, again_zero=None,
    ):  # fmt: skip
        weight = ops.dequantize(ops.quantize(w, w_scale, w_zero_point).named("weight"))
        z = op(ops.dequantize(x, x_scale, x_zero_point), weight, b).named("op")
        return added(z, inner, inner_zero, again, again_zero, y, y_scale, y_zero, scale, zero_point)

    return quantized_function_add


def module_add(op: Op) -> Pattern:
    """`module` whose result, quantized, is added to another tensor and read by nothing else."""

    @pattern
    def quantized_module_add(  # type: ignore[no-untyped-def]
        x, x_scale, x_zero_point, inner, inner_zero, y, y_scale, y_zero, scale, zero_point, again=None, again_zero=None
    ):
        z = op(ops.dequantize(x, x_scale, x_zero_point)).named("op")
        return added(z, inner, inner_zero, again, again_zero, y, y_scale, y_zero, scale, zero_point)

    return quantized_module_add


def added(
    z: Any, inner: Any, inner_zero: Any, again: Any, again_zero: Any, y: Any, y_scale: Any, y_zero: Any,
    scale: Any, zero_point: Any,
) -> Any:  # fmt: skip
    """`z`, quantized and dequantized, plus `y`; then clamps."""
    inside = ops.quantize(z, inner, inner_zero).named("inside").where(_read_once)
    back = ops.dequantize(inside, again, again_zero).where(_read_once)
    total = ops.add(back, ops.dequantize(y, y_scale, y_zero)).named("sum")
    return ops.quantize(clamps(total), scale, zero_point).named("out")
