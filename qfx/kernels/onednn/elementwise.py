"""Sums and products of codes in other parameters, clamps, and any function of one value by a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qfx.kernels.onednn.boundary import Number, dequantize, quantize

ADD_BITS = 21
"""Most bits of a multiplier of `add`: two of them times 255 and a zero point fit 32 bits."""


def add_factors(x_scale: float, y_scale: float, scale: float) -> tuple[int, int, int]:
    """The fixed-point form of ``x_scale / scale`` and ``y_scale / scale``: two integers and their shift to the right.

    A sum of codes is off by less than 2**-11 of a code where the scales differ by less than a factor of two, and by
    less than that times the factor elsewhere. An input of a scale 2**21 times the result's saturates.
    """
    exponent = math.frexp(max(x_scale, y_scale) / scale)[1]
    shift = max(0, min(ADD_BITS - exponent, ADD_BITS - 1))
    most = 2**ADD_BITS
    return min(round(x_scale / scale * 2**shift), most), min(round(y_scale / scale * 2**shift), most), shift


def add(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    y: Tensor,
    y_scale: Number,
    y_zero_point: Number,
    scale: Number,
    zero_point: Number,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
) -> Tensor:
    """Add codes in 32-bit fixed point, ties upwards.

    Args:
        x, y: codes, broadcast against one another.
        x_scale, x_zero_point, y_scale, y_zero_point: their parameters.
        scale, zero_point: of the result.
        low, high: bounds of the result in real numbers.
        most: the largest code of the result; None (default) for 255.
    """
    xz, yz = int(x_zero_point), int(y_zero_point)
    a, b, shift = add_factors(float(x_scale), float(y_scale), float(scale))
    lowest, highest = code_bounds(scale, zero_point, low, high, most)
    offset = (int(zero_point) << shift) - a * xz - b * yz + ((1 << shift) >> 1)
    total = torch.add(x.to(torch.int32).mul_(a).add_(offset), y.to(torch.int32), alpha=b)
    return total.bitwise_right_shift_(shift).clamp_(lowest, highest).to(torch.uint8)


def mul(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    y: Tensor,
    y_scale: Number,
    y_zero_point: Number,
    scale: Number,
    zero_point: Number,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
) -> Tensor:
    """Multiply codes: an exact integer product, one multiplication in float32, ties to the even code.

    Args: as `add`.
    """
    factor = torch.tensor(float(x_scale) * float(y_scale) / float(scale), dtype=torch.float32)
    lowest, highest = code_bounds(scale, zero_point, low, high, most)
    product = x.to(torch.int32).sub_(int(x_zero_point)) * y.to(torch.int32).sub_(int(y_zero_point))
    return product.mul(factor).add_(int(zero_point)).round_().clamp_(lowest, highest).to(torch.uint8)


def code_bounds(
    scale: Number, zero_point: Number, low: float | None, high: float | None, most: int | None = None
) -> tuple[int, int]:
    """The smallest and the largest code of a clamped result."""
    ends = torch.tensor([-math.inf if low is None else low, math.inf if high is None else high])
    found = quantize(ends, scale, zero_point)
    return int(found[0]), int(found[1]) if most is None else min(most, int(found[1]))


def clamp(x: Tensor, scale: Number, zero_point: Number, low: float | None = None, high: float | None = None) -> Tensor:
    """Keep codes between two real bounds."""
    return x.clamp(*code_bounds(scale, zero_point, low, high))


def lookup(x: Tensor, table: Tensor) -> Tensor:
    """Replace every code by the table's entry for it: any function of one value, in one pass.

    Args:
        x: codes, any shape and layout.
        table: 256 codes, ``torch.uint8``; `table_of` makes one.
    """
    dense = x if x.is_contiguous() or _is_channels_last(x) else x.contiguous()
    # The codes in the order they lie in memory, whatever the layout.
    flat = dense.as_strided((dense.numel(),), (1,))
    return torch.index_select(table, 0, flat.int()).as_strided(dense.shape, dense.stride())


def _is_channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


def table_of(
    function: Callable[[Tensor], Tensor], x_scale: Number, x_zero_point: Number, scale: Number, zero_point: Number
) -> Tensor:
    """The table of a float function: its value at each of 256 codes, quantized.

    Example:
        >>> table_of(torch.relu, 1.0, 128, 1.0, 0)[[0, 128, 200]]
        tensor([ 0,  0, 72], dtype=torch.uint8)
    """
    every = dequantize(torch.arange(256, dtype=torch.uint8), x_scale, x_zero_point)
    return quantize(function(every), scale, zero_point)


def cat(
    xs: Sequence[Tensor],
    scales: Sequence[Number],
    zero_points: Sequence[Number],
    scale: Number,
    zero_point: Number,
    dim: int = 0,
) -> Tensor:
    """Join codes along a dimension; inputs in other parameters than the result's are requantized."""
    wanted = (float(scale), int(zero_point))
    parts = []
    for x, s, z in zip(xs, scales, zero_points, strict=True):
        if (float(s), int(z)) != wanted:
            x = quantize(dequantize(x, s, z), scale, zero_point)
        parts.append(x)
    return torch.cat(parts, dim)
