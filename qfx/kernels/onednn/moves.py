"""Padding and resizing of codes; every other move of values is the float op's own call on the codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels.onednn.boundary import Number, quantize


def pad(
    x: Tensor,
    scale: Number,
    zero_point: Number,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Pad codes; a constant becomes its code. Arguments as in ``torch.nn.functional.pad``, every mode."""
    if mode != "constant":
        return F.pad(x, list(pad), mode=mode)
    code = quantize(torch.tensor(value or 0.0), scale, zero_point)
    return F.pad(x, list(pad), value=int(code))


def resize(x: Tensor, size: Sequence[int] | None = None, scale_factor: Sequence[float] | None = None) -> Tensor:
    """Repeat nearest codes, as ``F.interpolate(mode="nearest")`` of ``(N, C, *spatial)``."""
    return F.interpolate(
        x, None if size is None else list(size), None if scale_factor is None else list(scale_factor), mode="nearest"
    )
