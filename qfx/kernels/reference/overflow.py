"""16-bit sums: what CPUs without VNNI do to 8-bit activations times 8-bit weights, and the bound that rules it out.

Without VNNI, the one instruction that multiplies unsigned by signed bytes (``vpmaddubsw``) adds the products of two
neighbours and saturates the sum at 16 bits: two activations of 255 times two weights of 127 are 64770, stored as 32767.
With activations of at most 127 a pair never exceeds 2 * 127 * 128 = 32512.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qfx.errors import KernelError

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1

SAFE_CODE = 128
"""Products of activations up to this code with any 8-bit weights fit in pairs: 2 * 128 * -128 is just ``INT16_MIN``."""


def linear_sums_16bit(x: Tensor, w: Tensor, x_zero_point: int) -> Tensor:
    """Return what ``(x - x_zero_point) @ w.T`` becomes where products of neighbours are added in 16 bits, as float64.

    Neighbours are input features 2i and 2i + 1. The zero point is taken off afterwards, exactly, as kernels do: it is
    the raw codes that saturate.

    Args:
        x: unsigned codes ``(..., in_features)``.
        w: signed codes ``(out_features, in_features)``, zero point 0.
        x_zero_point: the input's zero point.

    Raises:
        KernelError: the numbers of input features differ.
    """
    if x.shape[-1] != w.shape[-1]:
        raise KernelError(f"input has {x.shape[-1]} features, weight takes {w.shape[-1]}; transpose one of them")
    if x.shape[-1] % 2:
        x, w = (torch.nn.functional.pad(t.double(), (0, 1)) for t in (x, w))
    pairs_x = x.double().reshape(*x.shape[:-1], 1, -1, 2)
    pairs_w = w.double().reshape(w.shape[0], -1, 2)
    sums = (pairs_x * pairs_w).sum(-1).clamp(INT16_MIN, INT16_MAX).sum(-1)
    return sums - x_zero_point * w.double().sum(-1)


def overflow_risk(weight: Tensor, act_min_code: int = 0, act_max_code: int = 255) -> float:
    """Return how far one 16-bit sum of two products can go, as a share of what 16 bits hold; above 1.0 it can overflow.

    The worst case over inputs whose codes are within ``act_min_code .. act_max_code``. Which two inputs are neighbours
    depends on how a kernel packs the weight, so any two weights of one output channel may be: the two largest (or two
    smallest) of a channel make the bound. It is attained if those two are neighbours.

    Args:
        weight: int8 codes, output channels first.
        act_min_code, act_max_code: the codes activations take (0..127 for 7 bits).

    Returns:
        ``max |a0 * w0 + a1 * w1| / limit``: 0.0 for an empty weight; at most 0.993 with 7-bit activations.

    Raises:
        KernelError: the activation codes are not a range of unsigned bytes.

    Example:
        >>> round(overflow_risk(torch.full((1, 4), 127, dtype=torch.int8)), 3)
        1.977
    """
    if not 0 <= act_min_code <= act_max_code <= 255:
        raise KernelError(f"activation codes {act_min_code}..{act_max_code} are not within 0..255")
    if weight.numel() == 0:
        return 0.0
    rows = weight.reshape(weight.shape[0], -1).double()
    pair = min(2, rows.shape[1])
    ends = rows.new_tensor([act_min_code, act_max_code])
    # each product is largest (smallest) at one end of the activations
    products = rows.unsqueeze(-1) * ends
    highest = products.amax(-1).topk(pair, dim=1).values.sum(1).max()
    lowest = products.amin(-1).topk(pair, dim=1, largest=False).values.sum(1).min()
    return max(float(highest) / INT16_MAX, float(lowest) / INT16_MIN, 0.0)
