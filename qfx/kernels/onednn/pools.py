"""Pools and means of codes: integer sums, one rounded division.

The result has its input's scale and zero point. Averages round half to the even code, as quantizing the exact
real average does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels.onednn.boundary import Number

# Windows of up to this many codes are averaged in float32: their sums are exact, and a quotient is too far from a tie
# to be rounded into one.
_MOST = 2**13


def _codes(averages: Tensor, zero_point: Number) -> Tensor:
    return averages.add_(int(zero_point)).round_().clamp_(0, 255).to(torch.uint8)


def _centered(x: Tensor, zero_point: Number, window: int) -> Tensor:
    return (x.float() if window <= _MOST else x.double()).sub_(int(zero_point))


def max_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest code of each window of ``(N, C, *spatial)`` or ``(C, *spatial)``.

    Arguments as in ``torch.nn.functional.max_pool{n}d``.
    """
    n = len(kernel_size)
    if x.dim() == n + 1:
        return max_pool(x.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode).squeeze(0)
    padding, dilation = padding or [0] * n, dilation or [1] * n
    pooled: Tensor
    if n == 3:
        # The float pool: torch's own for uint8 counts positions in the dtype of the codes, which 255 of them fill.
        how = (list(kernel_size), list(stride or kernel_size), list(padding), list(dilation), ceil_mode)
        pooled = F.max_pool3d(x.float(), *how).to(torch.uint8)
        return pooled
    one = [1] * (2 - n)
    pooled = torch.ops.quantized.max_pool2d(
        x.unsqueeze(-2) if n == 1 else x,
        [*one, *kernel_size],
        [*one, *(stride or kernel_size)],
        [*([0] * (2 - n)), *padding],
        [*one, *dilation],
        ceil_mode,
    )
    return pooled.squeeze(-2) if n == 1 else pooled


def avg_pool(
    x: Tensor,
    zero_point: Number,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of ``(N, C, *spatial)``; arguments as in ``torch.nn.functional.avg_pool{n}d``.

    Padding stands for 0.0, the zero point.
    """
    n = len(kernel_size)
    centered = _centered(x, zero_point, max(math.prod(kernel_size), abs(divisor_override or 1)))
    how: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    if n > 1:
        how["divisor_override"] = divisor_override
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
    steps, borders = list(stride or kernel_size), list(padding or [0] * n)
    return _codes(pool(centered, list(kernel_size), steps, borders, **how), zero_point)


def adaptive_avg_pool(x: Tensor, zero_point: Number, output_size: Sequence[int | None]) -> Tensor:
    """The average of each of ``output_size`` windows of ``(N, C, *spatial)``, as ``F.adaptive_avg_pool{n}d``."""
    n = len(output_size)
    sizes = [size if want is None else want for want, size in zip(output_size, x.shape[-n:], strict=True)]
    if all(size == 1 for size in sizes):
        return mean(x, zero_point, list(range(-n, 0)), keepdim=True)
    pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[n - 1]
    return _codes(pool(_centered(x, zero_point, math.prod(x.shape[-n:])), sizes), zero_point)


def mean(x: Tensor, zero_point: Number, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The average over some dimensions (all of them for None)."""
    dims = list(range(x.dim())) if dim is None or len(dim) == 0 else list(dim)
    count = math.prod(x.shape[d] for d in dims)
    zero = int(zero_point)
    sums = x.sum(dims, keepdim=keepdim, dtype=torch.int64 if count > 2**23 else torch.int32)
    return _codes(sums.double().sub_(zero * count).div_(count), zero)
