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


def rounded(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, low: int, high: int, pair: Tensor | None = None
) -> Tensor:
    """``x`` rounded to the values of its codes; the gradient passes where the code is within the bounds.

    Args:
        x: see `quick`.
        scale, zero_point: one element, or one a channel along `axis`.
        axis: None for one scale.
        low, high: the first and the last code.
        pair: `ends` of ``x``, if they are known and there is one scale: which codes there are need not be looked up.
    """
    if axis is not None:
        shape = [-1 if each == axis else 1 for each in range(x.dim())]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    made: Tensor = _Rounded.apply(x, scale, zero_point, low, high, pair if axis is None else None)
    return made


class _Rounded(torch.autograd.Function):
    """Codes less the zero point, in one buffer that becomes the result."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, pair: Tensor | None
    ) -> Tensor:
        inverse = scale.reciprocal()
        codes = (x * inverse).round_()
        first, last = (int(end) for end in torch.aminmax(zero_point))
        ctx.within = None
        # Rounding keeps the order, so the ends of the codes are the codes of the ends
        found = torch.aminmax(codes) if pair is None else (pair * inverse).round_().unbind()
        least, most = (float(end) for end in found)
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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        saved = ctx.saved_tensors
        if not saved:
            return gradient, None, None, None, None, None
        if ctx.within is None:
            return gradient * saved[0], None, None, None, None, None
        # The gradient of a clamp, in one pass
        passed = torch.ops.aten.hardtanh_backward(gradient, saved[0], *ctx.within)
        return passed, None, None, None, None, None


def folded_and_rounded(
    weight: Tensor,
    factor: Tensor,
    product: Tensor,
    pair: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    low: int,
    high: int,
) -> Tensor:
    """``rounded(weight * factor, ..., axis=0)`` and its gradients, in the memory of the product.

    What a large weight costs is the memory touched for it, so nothing is kept of its codes: where some saturate, the
    backward pass computes them again.

    Args:
        weight: see `quick`.
        factor: one element a channel, size 1 in every other dimension.
        product: ``weight * factor`` without a gradient; it is overwritten.
        pair: `ends` of the product along axis 0.
        scale, zero_point: one element a channel.
        low, high: the first and the last code.
    """
    made: Tensor = _FoldedAndRounded.apply(weight, factor, product, pair, scale, zero_point, low, high)
    return made


class _FoldedAndRounded(torch.autograd.Function):
    """Codes less the zero point, as in `_Rounded`, of a product that nobody reads besides."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        factor: Tensor,
        product: Tensor,
        pair: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        low: int,
        high: int,
    ) -> Tensor:
        inverse = scale.reciprocal()
        least, most = (pair * inverse.unsqueeze(1)).round_().unbind(1)  # of the codes: rounding keeps the order
        lowest, highest = low - zero_point, high - zero_point
        scale, inverse, lowest, highest = (each.reshape(factor.shape) for each in (scale, inverse, lowest, highest))
        codes = product.mul_(inverse).round_()
        ctx.bounds, ctx.others = None, list(range(1, weight.dim()))
        ctx.save_for_backward(weight, factor)
        if bool((least < lowest.flatten()).any() | (most > highest.flatten()).any()):
            one = bool((zero_point == zero_point[0]).all())
            ctx.bounds = (int(lowest.flatten()[0]), int(highest.flatten()[0])) if one else (lowest, highest)
            codes.clamp_(*ctx.bounds)
            ctx.save_for_backward(weight, factor, inverse)
        return codes.mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, factor, *saved = ctx.saved_tensors
        passed, of_factor = torch.empty_like(gradient), torch.empty_like(factor)
        # Some channels at once, so that all between the weight and its gradient stays in the cache
        step = max(1, _AT_ONCE * weight.shape[0] // weight.numel())
        room = torch.empty_like(gradient[:step])
        for start in range(0, weight.shape[0], step):
            part = slice(start, start + step)
            g, w, f, out = gradient[part], weight[part], factor[part], passed[part]
            scratch = room[: g.shape[0]]
            if saved:
                codes = torch.mul(w, f, out=scratch).mul_(saved[0][part]).round_()
                lowest, highest = (each[part] if isinstance(each, Tensor) else each for each in ctx.bounds)
                g = _within(g, codes, lowest, highest, out)
            torch.sum(torch.mul(g, w, out=scratch), ctx.others, keepdim=True, out=of_factor[part])
            torch.mul(g, f, out=out)
        return passed, of_factor, None, None, None, None, None, None


_AT_ONCE = 1 << 19
"""Elements of a weight whose gradient is worked out at once."""


def _within(gradient: Tensor, codes: Tensor, lowest: Any, highest: Any, out: Tensor) -> Tensor:
    """The gradient where codes are within the bounds, else 0."""
    if isinstance(lowest, Tensor):
        return torch.mul(gradient, (codes >= lowest) & (codes <= highest), out=out)
    # The gradient of a clamp, in one pass
    torch.ops.aten.hardtanh_backward.grad_input(gradient, codes, lowest - 0.5, highest + 0.5, grad_input=out)
    return out
