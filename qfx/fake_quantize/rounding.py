"""Rounding to codes and back with a gradient, in vectorised passes.

Torch's own kernels take one value at a time: ten times as long on a CPU. The numbers are the same to the bit, and so
are the gradients. Compiled graphs, scripts and other devices keep torch's kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.jit._trace import is_tracing


def quick(x: Any) -> bool:
    """Whether `rounded` and `ends` take a value: real float32 numbers on the CPU, outside of all tracing."""
    if type(x) not in (Tensor, torch.nn.Parameter) or x.dtype is not torch.float32 or x.device.type != "cpu":
        return False
    if x.numel() == 0:
        return False
    traced = torch.compiler.is_compiling() or is_tracing() or torch._C._len_torch_dispatch_stack() > 0
    return not traced and torch._C._functorch.maybe_current_level() is None


def ends(x: Tensor, axis: int | None) -> Tensor:
    """The smallest and the largest value, shape ``(2,)``; of each channel along `axis`, shape ``(channels, 2)``.

    A moving average learns from these what it would learn from all of ``x``.
    """
    x = x.detach()
    if axis is None:
        return torch.stack(torch.aminmax(x))
    rows = x.transpose(0, axis).flatten(1)
    return torch.stack([rows.amin(1), rows.amax(1)], 1)  # aminmax along a dimension is not vectorised


def rounded(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, low: int, high: int) -> Tensor:
    """``x`` rounded to the values of its codes; the gradient passes where the code is within the bounds.

    Args:
        x: see `quick`.
        scale, zero_point: one element, or one a channel along `axis`.
        axis: None for one scale.
        low, high: the first and the last code.
    """
    if axis is not None:
        shape = [-1 if each == axis else 1 for each in range(x.dim())]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    made: Tensor = _Rounded.apply(x, scale, zero_point, low, high)
    return made


class _Rounded(torch.autograd.Function):
    """Codes less the zero point, in one buffer that becomes the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        codes = (x * scale.reciprocal()).round_()
        first, last = (int(end) for end in torch.aminmax(zero_point))
        ctx.within = None
        least, most = (float(end) for end in torch.aminmax(codes))
        if least >= low - first and most <= high - last:
            return codes.mul_(scale)  # nothing saturates, so every gradient passes
        if first == last:
            ctx.within = (low - first - 0.5, high - first + 0.5)
            ctx.save_for_backward(codes)
            return codes.clamp(low - first, high - first).mul_(scale)
        lowest, highest = low - zero_point, high - zero_point
        ctx.save_for_backward((codes >= lowest) & (codes <= highest))
        return codes.clamp(lowest, highest).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        saved = ctx.saved_tensors
        if not saved:
            return gradient, None, None, None, None
        if ctx.within is None:
            return gradient * saved[0], None, None, None, None
        # The gradient of a clamp, in one pass
        passed = torch.ops.aten.hardtanh_backward(gradient, saved[0], *ctx.within)
        return passed, None, None, None, None
