"""Ranges, codes and parameters, asked about one at a time: what observers outside this library are written with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qfx import dtypes
from qfx.errors import ConfigError, ObservationError
from qfx.frames import warn
from qfx.observers import PlaceholderObserver
from qfx.qparams import range_to_qparams, symmetric_zero_point

# Quantized tensors know no symmetric scheme: the zero point says it all.
_OF_TENSORS = {
    torch.per_tensor_symmetric: torch.per_tensor_affine,
    torch.per_channel_symmetric: torch.per_channel_affine,
}


def check_min_max_valid(min_val: Tensor, max_val: Tensor) -> bool:
    """Whether an observer saw something: false, with a warning, for an empty range or infinity to minus infinity.

    Args:
        min_val: smallest values, shape ``()`` or ``(channels,)``; ``(0,)`` before anything was seen.
        max_val: largest values.

    Raises:
        ObservationError: a minimum is above its maximum.
    """
    unset = min_val.numel() == 0 or max_val.numel() == 0
    if not unset and (min_val.dim() == 0 or max_val.dim() == 0):
        unset = bool(min_val == float("inf")) and bool(max_val == float("-inf"))
    if unset:
        warn(
            "the observer has seen nothing yet, so its scale is the default; run it on data before calculate_qparams",
            UserWarning,
        )
        return False
    if bool((min_val > max_val).any()):
        raise ObservationError(f"min {min_val} should be less than max {max_val}; reset the observer")
    return True


def validate_qmin_qmax(quant_min: int, quant_max: int) -> None:
    """Check a range of codes.

    Raises:
        ConfigError: it does not include 0, or has no more than one code.
    """
    dtypes.check_codes(quant_min, quant_max)


def calculate_qmin_qmax(
    quant_min: int, quant_max: int, has_customized_qrange: bool, dtype: torch.dtype, reduce_range: bool
) -> tuple[int, int]:
    """Return the codes an observer uses.

    Args:
        quant_min, quant_max: the codes asked for; not looked at unless ``has_customized_qrange``.
        has_customized_qrange: use these instead of all codes of ``dtype``.
        dtype: the dtype of the codes; one that stands for no integers has 0..15.
        reduce_range: one bit less; halves what was asked for.

    Raises:
        ConfigError: more codes are asked for than a signed dtype has, or a single one.

    Example:
        >>> calculate_qmin_qmax(0, 0, False, torch.qint8, True), calculate_qmin_qmax(0, 15, True, torch.quint8, False)
        ((-64, 63), (0, 15))
    """
    if has_customized_qrange:
        # Wider ranges for unsigned codes are the caller's affair, as in the original.
        if dtypes.is_integer(dtype) and dtypes.is_signed(dtype) and dtype is not torch.int16:
            dtypes.check_code_range(dtype, min(quant_min, 0), max(quant_max, 0))
        return (quant_min // 2, quant_max // 2) if reduce_range else (quant_min, quant_max)
    if dtype in (torch.quint4x2, torch.quint2x4) or not dtypes.is_integer(dtype):
        return 0, 15
    return dtypes.code_range(dtype, reduce_range)


def determine_qparams(
    min_val: Tensor,
    max_val: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    eps: Tensor,
    has_customized_qrange: bool,
    qscheme: torch.qscheme = torch.per_tensor_affine,
) -> tuple[Tensor, Tensor]:
    """Return scale (float64) and zero point (int64) for a range, each of shape ``(1,)`` or ``(channels,)``.

    ``qfx.qparams.choose_qparams`` is the same without the detour: it keeps float32.

    Args:
        min_val, max_val: the range, shape ``()`` or ``(channels,)``; 1 and 0 are returned, with a warning, where
            nothing was seen.
        quant_min, quant_max: the codes.
        dtype: the dtype of the codes.
        eps: smallest scale, shape ``(1,)``.
        has_customized_qrange: the codes were asked for, so a symmetric unsigned zero point is their middle.
        qscheme: scheme; with float zero points these are float64.

    Raises:
        ObservationError: a minimum is above its maximum.
    """
    if not check_min_max_valid(min_val, max_val):
        device = min_val.device.type
        return torch.tensor([1.0], device=device), torch.tensor([0], device=device)
    floats = dtypes.has_float_zero_point(qscheme)
    scale, zero_point = range_to_qparams(
        min_val,
        max_val,
        eps.to(min_val.device),
        quant_min,
        quant_max,
        dtypes.is_symmetric(qscheme),
        floats,
        symmetric_zero_point(dtype, quant_min, quant_max, has_customized_qrange),
    )
    return scale.to(torch.double), zero_point.to(torch.double if floats else torch.int64)


def to_underlying_dtype(qdtype: torch.dtype) -> torch.dtype:
    """Return the plain dtype whose tensors hold the codes of ``qdtype``; float8 dtypes are their own.

    Raises:
        ConfigError: another dtype.

    Example:
        >>> to_underlying_dtype(torch.quint8), to_underlying_dtype(torch.int16)
        (torch.uint8, torch.int16)
    """
    return qdtype if qdtype in dtypes.FLOAT8_DTYPES else dtypes.storage_dtype(qdtype)


def get_qparam_dict(observer_or_fake_quant: Any) -> dict[str, Any]:
    """Return what a quantized tensor is made with: qscheme, dtype, scale, zero point, and axis and codes if known.

    A placeholder, or an observer without a scheme, has ``{"qscheme": None, "dtype": dtype}``.

    Raises:
        ConfigError: a scheme that is neither per tensor nor per channel.

    Example:
        >>> from qfx.observers import FixedQParamsObserver
        >>> get_qparam_dict(FixedQParamsObserver(0.5, 3))["qscheme"]
        torch.per_tensor_affine
    """
    source = observer_or_fake_quant
    qscheme = getattr(source, "qscheme", None)
    if not qscheme or isinstance(source, PlaceholderObserver):
        return {"qscheme": None, "dtype": source.dtype}
    found = {"qscheme": _OF_TENSORS.get(qscheme, qscheme), "dtype": source.dtype}
    if dtypes.is_per_channel(qscheme):
        found["axis"] = source.ch_axis
    elif not dtypes.is_per_tensor(qscheme):
        raise ConfigError(f"{type(source).__name__} has the scheme {qscheme}, neither per tensor nor per channel")
    found["scale"], found["zero_point"] = source.calculate_qparams()
    return found | {name: getattr(source, name) for name in ("quant_min", "quant_max") if hasattr(source, name)}
