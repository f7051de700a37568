"""Patterns of a reference graph: dequantize, an op, quantize."""

from __future__ import annotations

from typing import Any

from qfx import ops
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
    def quantized_function(x, w, w_scale, w_zero_point, scale, zero_point, b=None):  # type: ignore[no-untyped-def]
        weight = ops.dequantize(ops.quantize(w, w_scale, w_zero_point).named("weight"))
        y = op(ops.dequantize(x), weight, b).named("op")
        return ops.quantize(clamps(y), scale, zero_point).named("out")

    return quantized_function


def module(op: Op) -> Pattern:
    """A module of one input (`op` is the class's opaque op), then clamps."""

    @pattern
    def quantized_module(x, scale, zero_point):  # type: ignore[no-untyped-def]
        return ops.quantize(clamps(op(ops.dequantize(x)).named("op")), scale, zero_point).named("out")

    return quantized_module


def binary(op: Op) -> Pattern:
    """An op of two tensors, then clamps."""

    @pattern
    def quantized_binary(x, y, scale, zero_point):  # type: ignore[no-untyped-def]
        z = op(ops.dequantize(x), ops.dequantize(y)).named("op")
        return ops.quantize(clamps(z), scale, zero_point).named("out")

    return quantized_binary


def with_number(op: Op) -> Pattern:
    """An op of a tensor and a number, then clamps."""

    @pattern
    def quantized_with_number(x, c, scale, zero_point):  # type: ignore[no-untyped-def]
        z = op(ops.dequantize(x), c.where(_is_number)).named("op")
        return ops.quantize(clamps(z), scale, zero_point).named("out")

    return quantized_with_number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unary(op: Op) -> Pattern:
    """An op of one tensor, then clamps."""

    @pattern
    def quantized_unary(x, scale, zero_point):  # type: ignore[no-untyped-def]
        return ops.quantize(clamps(op(ops.dequantize(x)).named("op")), scale, zero_point).named("out")

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


def same(op: Op) -> Pattern:
    """An op whose result has its input's parameters."""

    @pattern
    def quantized_same(x, scale, zero_point):  # type: ignore[no-untyped-def]
        return ops.quantize(op(ops.dequantize(x).named("back")).named("op"), scale, zero_point).named("out")

    return quantized_same


def gathered(op: Op) -> Pattern:
    """An op of a list of tensors (cat, stack)."""

    @pattern
    def quantized_list(xs, scale, zero_point):  # type: ignore[no-untyped-def]
        return ops.quantize(op(xs).named("op"), scale, zero_point).named("out")

    return quantized_list


@pattern
def requantized(x, scale, zero_point):  # type: ignore[no-untyped-def]
    """Back to float and at once to integers again."""
    return ops.quantize(ops.dequantize(x), scale, zero_point).named("out")
