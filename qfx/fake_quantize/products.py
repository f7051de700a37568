"""Products and quotients by one factor a channel, whose gradients make no tensor more than they need.

What takes the time in training a large weight is fresh memory, not arithmetic. These do what autograd does to plain
operations, in the same order and so to the same bits, but write into what they have already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def multiplied(weight: Tensor, factor: Tensor) -> Tensor:
    """``weight * factor``; ``factor`` has one element a row and size 1 in every other dimension."""
    made: Tensor = _Multiplied.apply(weight, factor)
    return made


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(weight, factor)
        return weight * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        weight, factor = ctx.saved_tensors
        product = gradient * weight
        of_factor = product.sum(_ones(factor), keepdim=True)
        return torch.mul(gradient, factor, out=product), of_factor


def divided(x: Tensor, factor: Tensor) -> Tensor:
    """``x / factor``; ``factor`` has one element a channel and size 1 in every other dimension."""
    made: Tensor = _Divided.apply(x, factor)
    return made


class _Divided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        quotient = x / factor
        ctx.save_for_backward(quotient, factor)  # not x: the batch norm keeps the quotient anyway
        return quotient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        quotient, factor = ctx.saved_tensors
        product = (quotient / factor).mul_(gradient)
        of_factor = product.sum(_ones(factor), keepdim=True).neg_()
        return torch.div(gradient, factor, out=product), of_factor


def _ones(factor: Tensor) -> list[int]:
    return [dim for dim, size in enumerate(factor.shape) if size == 1]
