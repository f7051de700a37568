"""Facts about the dtypes and schemes of quantization.

A configuration keeps the dtype object it was given (``torch.quint8`` included); this module alone says which plain
integer dtype stores its codes and which codes it has. Nothing here allocates a quantized tensor, so nothing here warns.

Example:
    >>> storage_dtype(torch.quint8), code_range(torch.quint8, reduce_range=True)
    (torch.uint8, (0, 127))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from qfx.errors import ConfigError


@dataclass(frozen=True)
class DtypeFacts:
    """What is known of one dtype: plain dtype, bits and ends of its codes, and the ends with one bit less."""

    storage: torch.dtype
    bits: int
    codes: tuple[int, int]
    reduced: tuple[int, int]


def _facts(storage: torch.dtype, bits: int, *, signed: bool, reducible: bool = False) -> DtypeFacts:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    # One bit less keeps the sign convention: -64..63 and 0..127. Only 8-bit kernels accumulate in 16 bits and need it.
    reduced = (low // 2, high // 2) if reducible else (low, high)
    return DtypeFacts(storage, bits, (low, high), reduced)


_UINT8 = _facts(torch.uint8, 8, signed=False, reducible=True)
_INT8 = _facts(torch.int8, 8, signed=True, reducible=True)
_INT32 = _facts(torch.int32, 32, signed=True)

FACTS: Mapping[torch.dtype, DtypeFacts] = MappingProxyType(
    {
        torch.quint8: _UINT8,
        torch.uint8: _UINT8,
        torch.qint8: _INT8,
        torch.int8: _INT8,
        torch.qint32: _INT32,
        torch.int32: _INT32,
        torch.int16: _facts(torch.int16, 16, signed=True),
        torch.uint16: _facts(torch.uint16, 16, signed=False),
        torch.quint4x2: _facts(torch.uint8, 4, signed=False),
        torch.quint2x4: _facts(torch.uint8, 2, signed=False),
    }
)
"""Every integer dtype a configuration may name."""

QUANTIZED_DTYPES: frozenset[torch.dtype] = frozenset(
    {torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4}
)
"""The dtypes of torch's quantized tensors, which torch deprecates: fine as names, avoided as tensors where possible."""

FLOAT8_DTYPES: frozenset[torch.dtype] = frozenset({torch.float8_e5m2, torch.float8_e4m3fn})
"""Accepted by observers as names only; no integer kernel takes them."""


def is_quantized(dtype: object) -> bool:
    """Whether ``dtype`` names one of torch's quantized tensor dtypes (``torch.quint8`` ...)."""
    return dtype in QUANTIZED_DTYPES


def is_integer(dtype: object) -> bool:
    """Whether ``dtype`` stands for integer codes, as a quantized or as a plain dtype."""
    return dtype in FACTS


def facts(dtype: torch.dtype) -> DtypeFacts:
    """Return what is known of an integer dtype.

    Raises:
        ConfigError: ``dtype`` does not stand for integer codes.
    """
    try:
        return FACTS[dtype]
    except KeyError:
        known = ", ".join(str(name) for name in FACTS)
        raise ConfigError(f"{dtype} does not stand for integer codes; use one of {known}") from None


def storage_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the plain integer dtype whose tensors hold the codes of ``dtype``."""
    return facts(dtype).storage


def same_codes(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether two dtypes mean the same: equal, or a quantized dtype and the plain one of the same codes.

    Example:
        >>> same_codes(torch.quint8, torch.uint8), same_codes(torch.quint4x2, torch.uint8)
        (True, False)
    """
    return one == other or (one in FACTS and other in FACTS and FACTS[one] == FACTS[other])


def quantized_dtype(dtype: torch.dtype) -> torch.dtype | None:
    """Return the dtype of torch's quantized tensors that means the same (``quint8`` for ``uint8``), or None.

    Example:
        >>> quantized_dtype(torch.int8), quantized_dtype(torch.int16)
        (torch.qint8, None)
    """
    if dtype in QUANTIZED_DTYPES:
        return dtype
    return next((each for each in (torch.quint8, torch.qint8, torch.qint32) if same_codes(each, dtype)), None)


def bits(dtype: torch.dtype) -> int:
    """Return how many bits one code of ``dtype`` has (4 for ``torch.quint4x2``)."""
    return facts(dtype).bits


def is_signed(dtype: torch.dtype) -> bool:
    """Whether codes of ``dtype`` may be negative."""
    return facts(dtype).codes[0] < 0


def code_range(dtype: torch.dtype, reduce_range: bool = False) -> tuple[int, int]:
    """Return the smallest and largest code of ``dtype``, by default all of them.

    Args:
        dtype: an integer dtype, quantized or plain.
        reduce_range: use one bit less; affects 8-bit dtypes only.

    Raises:
        ConfigError: ``dtype`` does not stand for integer codes.
    """
    found = facts(dtype)
    return found.reduced if reduce_range else found.codes


def check_codes(quant_min: int, quant_max: int) -> None:
    """Raise ConfigError unless ``quant_min .. quant_max`` includes zero and another number."""
    if not quant_min <= 0 <= quant_max:
        raise ConfigError(
            f"User-specified quantization range must include 0. The codes are {quant_min}..{quant_max}; "
            "choose quant_min <= 0 <= quant_max"
        )
    if quant_min == quant_max:
        raise ConfigError(
            "qmin must be strictly less than qmax for user-specified quantization range. "
            f"There is but one code, {quant_min}; choose quant_min < quant_max"
        )


def check_code_range(dtype: torch.dtype, quant_min: int, quant_max: int) -> None:
    """Raise ConfigError unless ``quant_min .. quant_max`` includes zero and has no more codes than ``dtype``."""
    check_codes(quant_min, quant_max)
    if dtype in FACTS and quant_max - quant_min >= 2 ** bits(dtype):
        raise ConfigError(
            f"codes {quant_min}..{quant_max} are more than the {2 ** bits(dtype)} codes of {dtype}; "
            "narrow the range or use a wider dtype"
        )


def resolve_code_range(
    dtype: torch.dtype, quant_min: int | None, quant_max: int | None, reduce_range: bool = False
) -> tuple[int, int]:
    """Return the codes an observer uses: the ones asked for (halved by ``reduce_range``), else those of the dtype.

    A range is *asked for* when both ends are given. ``float8`` dtypes have no codes and get 0..15, as in the original.

    Raises:
        ConfigError: the range asked for does not fit (see ``check_code_range``).
    """
    if quant_min is not None and quant_max is not None:
        check_code_range(dtype, quant_min, quant_max)
        return (quant_min // 2, quant_max // 2) if reduce_range else (quant_min, quant_max)
    if dtype in FLOAT8_DTYPES:
        return 0, 15
    return code_range(dtype, reduce_range)


PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)
PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric, torch.per_channel_affine_float_qparams)
SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


def is_per_tensor(qscheme: object) -> bool:
    """Whether one scale serves the whole tensor."""
    return qscheme in PER_TENSOR


def is_per_channel(qscheme: object) -> bool:
    """Whether each channel has its own scale."""
    return qscheme in PER_CHANNEL


_STORED_AS = {
    torch.per_tensor_symmetric: torch.per_tensor_affine,
    torch.per_channel_symmetric: torch.per_channel_affine,
}


def affine(qscheme: Any) -> Any:
    """The scheme a quantized tensor has whose parameters were chosen by this one: symmetric is a way of choosing."""
    return _STORED_AS.get(qscheme, qscheme)


def is_symmetric(qscheme: object) -> bool:
    """Whether the range is taken as ``-m .. m``, which puts the zero point in the middle of the codes."""
    return qscheme in SYMMETRIC


def has_float_zero_point(qscheme: object) -> bool:
    """Whether the zero point is a float and the range need not include zero (embeddings)."""
    return qscheme == torch.per_channel_affine_float_qparams
