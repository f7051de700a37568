"""Into plain integers and back: ``torch.uint8`` tensors whose scale and zero point travel beside them."""

from __future__ import annotations

import torch
from torch import Tensor

from qfx.qparams import QParams
from qfx.qparams import dequantize as float_of
from qfx.qparams import quantize as codes_of

Number = float | Tensor
"""A scale or zero point: a number, or a tensor of one element."""


def quantize(x: Tensor, scale: Number, zero_point: Number) -> Tensor:
    """Quantize a float tensor to ``torch.uint8``.

    ``clamp(round(x * (1 / scale) + zero_point), 0, 255)`` with ties to even, the codes ``torch.quantize_per_tensor``
    gives for ``torch.quint8``. NaN becomes 0 (torch leaves it undefined).

    Args:
        x: any shape and float dtype.
        scale: larger than 0.
        zero_point: 0 to 255.

    Example:
        >>> quantize(torch.tensor([-1.0, 0.26, 200.0]), 0.5, 10)
        tensor([  8,  11, 255], dtype=torch.uint8)
    """
    # Like torch's kernel: the reciprocal is a float32, product and sum are rounded once. The product of two float32 is
    # exact in float64, so rounding the sum to float32 is that fused multiply-add.
    inverse = float(torch.tensor(1.0) / torch.tensor(float(scale)))
    codes = x.double().mul_(inverse).add_(int(zero_point)).float()
    return codes.round_().clamp_(0, 255).nan_to_num_(0.0).to(torch.uint8)


def dequantize(q: Tensor, scale: Number, zero_point: Number) -> Tensor:
    """The real values of codes, ``torch.float32``: ``(q - zero_point) * scale``.

    Example:
        >>> dequantize(torch.tensor([8, 11], dtype=torch.uint8), 0.5, 10)
        tensor([-1.0000,  0.5000])
    """
    return q.float().sub_(int(zero_point)).mul_(float(scale))


def requantize(q: Tensor, from_scale: Number, from_zero_point: Number, scale: Number, zero_point: Number) -> Tensor:
    """The codes of the same values in other parameters: `dequantize`, then `quantize`."""
    return quantize(dequantize(q, from_scale, from_zero_point), scale, zero_point)


def through_integers(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, lowest: int, highest: int
) -> Tensor:
    """What is left of a float tensor by a trip through codes: the weight of a layer that no kernel takes.

    Args:
        x: any shape, ``torch.float32``.
        scale, zero_point: one element, or one for each index along `axis`.
        axis: the dimension that has a scale for each index; None for one scale.
        lowest, highest: the ends of the codes.

    Example:
        >>> through_integers(torch.tensor([0.26, 9.0]), torch.tensor(0.5), torch.tensor(0), None, -4, 3)
        tensor([0.5000, 1.5000])
    """
    how = QParams(scale, zero_point, axis, torch.int32, lowest, highest)
    return float_of(codes_of(x, how), how)
