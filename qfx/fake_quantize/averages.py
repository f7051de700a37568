"""The averages and parameters of all channels at once, as torch's fused kernel finds them channel by channel.

The kernel (``torch.fused_moving_avg_obs_fake_quant``) reads and writes one number after the other through the
dispatcher, which for the weights of a ResNet-18 takes a twentieth of a training step. These are the same numbers, bit
for bit: mixed single and double precision are part of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST_SCALE = float(torch.tensor(6.1e-5, dtype=torch.float))
"""Scales below are raised to this, and the range with them. A number of single precision, also among doubles."""

_WITHOUT_RANGE = 0.1
"""The scale of a channel of zeros."""


def move_averages(pair: Tensor, low: Tensor, high: Tensor, constant: float) -> bool:
    """Move the averages of each channel towards its newest ends, in place.

    Args:
        pair: the smallest and the largest value of each channel, shape ``(channels, 2)``, float32 on the CPU.
        low, high: the averages, shape ``(channels,)``.
        constant: weight of the newest ends.

    Returns:
        Whether it was done: the kernel starts the averages, and says what is wrong with NaN and infinity.
    """
    if not (pair.is_cpu and low.shape == high.shape == pair.shape[:1] and low.dtype == high.dtype == pair.dtype):
        return False
    least, most = pair.unbind(1)
    width = float((most - least + high - low).sum())
    if width - width != 0.0:  # NaN or infinity is among them, or they overflow
        return False
    low.add_(constant * (least - low))
    high.add_(constant * (most - high))
    return True


def qparams_of_rows(low: Tensor, high: Tensor, first: int, last: int, *, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of each channel, for codes `first` to `last`.

    Args:
        low, high: the range of each channel, float32; it is widened to include 0.
        first, last: the codes.
        symmetric: a range with both signs gets the middle code for 0, and as much room on either side.

    Source: the arithmetic of FBGEMM's ``ChooseQuantizationParams``, which torch's kernel calls.
    """
    steps = last - first
    if symmetric:
        half = steps // 2
        both = (low < 0) & (high > 0)
        unit = torch.maximum((low / -(half + 1)).abs(), (high / half).abs()).double()
        low = torch.where(both, (unit * -(half + 1)).float(), low)
        high = torch.where(both, (unit * half).float(), high)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high.double() - low.double()) / steps).float()
    scale = torch.where((scale == 0) | (1.0 / scale).isinf(), _WITHOUT_RANGE, scale)
    small = scale < _SMALLEST_SCALE
    if bool(small.any()):
        low, high = _raised(low, high, scale, small, steps)
        scale = torch.where(small, _SMALLEST_SCALE, scale)
    below, above = low.double() / scale.double(), high.double() / scale.double()
    # Of the two ends, 0 is counted from the one that loses fewer digits by it.
    nearer = abs(first) + below.abs() < abs(last) + above.abs()
    zero_point = torch.where(nearer, first - below, last - above)
    if symmetric:
        zero_point = torch.where((low < 0) & (high > 0), (first + last) / 2, zero_point)
    return scale, zero_point.clamp(first, last).round().int()


def _raised(low: Tensor, high: Tensor, scale: Tensor, small: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The ranges that fit the smallest scale, where the scale is below it."""
    whole = torch.full_like(low, _SMALLEST_SCALE * steps)
    factor = torch.full_like(scale, _SMALLEST_SCALE) / scale  # a number over a tensor is a product with its inverse
    lower = torch.where(low == 0, low, torch.where(high == 0, -whole, low * factor))
    higher = torch.where(low == 0, whole, torch.where(high == 0, high, high * factor))
    return torch.where(small, lower, low), torch.where(small, higher, high)
