"""Quantized tensors taken apart for copies and pickles.

Copying a tensor of a quantized dtype goes through torch's deprecated typed storages and warns the user of it; integers
and scales do not.
"""

from __future__ import annotations

from typing import Any

import torch


def take_apart(tensor: torch.Tensor) -> Any:
    """A quantized tensor as plain tensors and numbers; a float tensor as it is.

    Example:
        >>> q = torch.quantize_per_tensor(torch.tensor([1.0]), 0.5, 3, torch.quint8)
        >>> take_apart(q)[1:]
        (0.5, 3, None, torch.quint8)
    """
    if not tensor.is_quantized:
        return tensor
    # 4-bit codes share bytes and have no plain form that torch can turn back; requantizing finds the same codes again.
    values = tensor.dequantize() if tensor.dtype == torch.quint4x2 else tensor.int_repr()
    if tensor.qscheme() == torch.per_tensor_affine:
        return values, tensor.q_scale(), tensor.q_zero_point(), None, tensor.dtype
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return values, scales, zero_points, tensor.q_per_channel_axis(), tensor.dtype


def put_together(parts: Any) -> torch.Tensor:
    """The tensor :func:`take_apart` took apart, codes and qparams exactly the same.

    The parts need not have stayed in memory; a pickle of them is as good.
    """
    if isinstance(parts, torch.Tensor):
        return parts
    values, scale, zero_point, axis, dtype = parts
    if axis is None:
        return torch._make_per_tensor_quantized_tensor(values, scale, zero_point)
    if dtype == torch.quint4x2:
        return torch.quantize_per_channel(values, scale, zero_point, axis, dtype)
    return torch._make_per_channel_quantized_tensor(values, scale, zero_point, axis)
