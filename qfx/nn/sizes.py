"""Sizes per spatial dimension, and how a message calls the layout of a tensor."""

from __future__ import annotations

from typing import Any

import torch

from qfx.nn.errors import InputError

LAYOUTS = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def sizes(value: Any, dims: int) -> tuple[int, ...]:
    """One number per spatial dimension from a number or a sequence of them.

    Raises:
        InputError: another count of numbers.

    Example:
        >>> sizes(2, 3), sizes((1, 2), 2)
        ((2, 2, 2), (1, 2))
    """
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    if len(values) not in (1, dims):
        raise InputError(f"expected a number or {dims} of them, got {value!r}")
    return values * dims if len(values) == 1 else values


def numeric_padding(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Padding as numbers, also where it was spelled ``'valid'`` or ``'same'``.

    Raises:
        InputError: ``'same'`` would pad one side more than the other, which quantized convolutions cannot; or another
            word.
    """
    if not isinstance(padding, str):
        return sizes(padding, len(kernel))
    if padding == "valid":
        return (0,) * len(kernel)
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if padding != "same" or any(total % 2 for total in totals):
        raise InputError(
            f"padding={padding!r} with kernel {kernel} and dilation {dilation} is not the same on both sides, as "
            "quantized convolutions need it; pad explicitly before the convolution"
        )
    return tuple(total // 2 for total in totals)
