"""The three ways torch's own loops (not those of the engines) turn floats into codes, and codes into floats.

Elementwise kernels, pools and resizing are loops of ATen. They agree on the real-valued formula and differ in where
they round, by loop: vectors of elements, the elements that do not fill a vector, channels-last or not. It decides
values within one float32 rounding of a tie, common here: an average of four codes is a tie one time in four.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from qfx.kernels.reference.arithmetic import float32, fma, saturate
from qfx.qparams import QParams

Lanes = Literal["vector", "scalar"]
"""Which part of a loop an element is in: whole vectors, or the rest that is done one by one.

With AVX512 elementwise loops take 128 elements at a time, with AVX2 64; what is left over, at the end of a tensor or of
one thread's share, is scalar.
"""

How = Literal["split", "plain", "fused"]
"""``split``: round, then add the zero point. ``plain``: add it, then round. ``fused``: plain in one step."""


def to_float(codes: Tensor, qparams: QParams, lanes: Lanes) -> Tensor:
    """Return ``(code - zero_point) * scale`` in float32; vectors fuse ``code * scale - zero_point * scale``."""
    scale, zero_point = float32(qparams.scale), float32(qparams.zero_point)
    if lanes == "scalar":
        return (codes.float() - zero_point) * scale
    return fma(codes.float(), scale, -(scale * zero_point))


def to_codes(
    values: Tensor,
    multiplier: Tensor,
    out: QParams,
    how: How,
    *,
    relu: bool = False,
    clamp: tuple[int, int] | None = None,
) -> Tensor:
    """Return ``values * multiplier + zero_point``, rounded half to even and saturated, as codes."""
    zero_point = float32(out.zero_point)
    if how == "split":
        rounded = torch.round(values * multiplier).double() + zero_point.double()
    elif how == "plain":
        rounded = torch.round(values * multiplier + zero_point)
    else:
        rounded = torch.round(fma(values, multiplier, zero_point))
    return saturate(rounded, out, relu=relu, clamp=clamp)


def inverse(out: QParams) -> Tensor:
    """Return the float32 reciprocal of the float32 scale."""
    return 1.0 / float32(out.scale)


def inverse_of_double(out: QParams) -> Tensor:
    """Return the reciprocal taken in float64 and then rounded; some kernels do."""
    return float32(1.0 / torch.as_tensor(out.scale, dtype=torch.float64))


def finish(values: Tensor, out: QParams, lanes: Lanes, *, relu: bool = False) -> Tensor:
    """Return float32 ``values`` as codes, as elementwise loops do."""
    return to_codes(values, inverse(out), out, "split" if lanes == "vector" else "plain", relu=relu)
