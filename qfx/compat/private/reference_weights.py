"""A weight and its integers, argument by argument (``nn.quantized.reference.modules.utils``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qfx.kernels.decomposed import registered
from qfx.nn.quantized.reference.weight import STORAGE, float_weight, quantized_weight

_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_affine_float_qparams)


def _quantize_weight(
    weight: Tensor, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Tensor, weight_zero_point: Tensor,
    weight_axis_int: int,
) -> Tensor:  # fmt: skip
    """The weight as a quantized tensor; cast where its dtype is a float one or there is no scheme."""
    return quantized_weight(
        *_told(weight, weight_qscheme, weight_dtype, weight_scale, weight_zero_point, weight_axis_int)
    )


def _quantize_and_dequantize_weight(
    weight: Tensor, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Tensor, weight_zero_point: Tensor,
    weight_axis_int: int,
) -> Tensor:  # fmt: skip
    """The weight after a round trip through `_quantize_weight`, as float32."""
    return float_weight(*_told(weight, weight_qscheme, weight_dtype, weight_scale, weight_zero_point, weight_axis_int))


def _told(weight: Tensor, scheme: Any, dtype: torch.dtype, scale: Tensor, zero_point: Tensor, axis: int) -> Any:
    storage, low, high = STORAGE.get(dtype, (dtype, 0, 0))
    quantized, per_channel = scheme is not None and dtype in STORAGE, scheme in _PER_CHANNEL
    return weight, scale, zero_point, quantized, dtype is storage, per_channel, axis, low, high, dtype, storage


def _quantize_weight_decomposed(
    weight: Tensor, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Tensor, weight_zero_point: Tensor,
    weight_axis: int, weight_quant_min: int | None, weight_quant_max: int | None,
) -> Tensor:  # fmt: skip
    """The weight as a plain integer tensor, by ``torch.ops.quantized_decomposed``; None stands for all of the codes."""
    if weight_qscheme is None or weight_dtype not in STORAGE:
        return weight.to(weight_dtype)
    kind, told = _operator(
        weight_qscheme, weight_dtype, weight_scale, weight_zero_point, weight_axis, weight_quant_min, weight_quant_max
    )
    found: Tensor = getattr(registered(), f"quantize_{kind}")(weight, *told)
    return found


def _dequantize_weight_decomposed(
    weight: Tensor, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Tensor, weight_zero_point: Tensor,
    weight_axis: int, weight_quant_min: int | None, weight_quant_max: int | None,
) -> Tensor:  # fmt: skip
    """The way back from `_quantize_weight_decomposed`."""
    if weight_qscheme is None or weight_dtype not in STORAGE:
        return weight
    kind, told = _operator(
        weight_qscheme, weight_dtype, weight_scale, weight_zero_point, weight_axis, weight_quant_min, weight_quant_max
    )
    found: Tensor = getattr(registered(), f"dequantize_{kind}")(weight, *told)
    return found


def _quantize_and_dequantize_weight_decomposed(
    weight: Tensor, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Tensor, weight_zero_point: Tensor,
    weight_axis_int: int, weight_quant_min: int | None, weight_quant_max: int | None,
) -> Tensor:  # fmt: skip
    """The weight after a round trip through `_quantize_weight_decomposed`; as it is where its dtype is a float one."""
    if weight_qscheme is None or weight_dtype not in STORAGE:
        return weight
    told = (
        weight_qscheme, weight_dtype, weight_scale, weight_zero_point, weight_axis_int, weight_quant_min,
        weight_quant_max,
    )  # fmt: skip
    return _dequantize_weight_decomposed(_quantize_weight_decomposed(weight, *told), *told)


def _operator(
    scheme: Any, dtype: torch.dtype, scale: Tensor, zero_point: Tensor, axis: int, low: int | None, high: int | None
) -> tuple[str, tuple[Any, ...]]:
    storage, lowest, highest = STORAGE[dtype]
    codes = (lowest if low is None else low, highest if high is None else high, storage)
    if scheme in _PER_CHANNEL:
        return "per_channel", (scale, zero_point, axis, *codes)
    return "per_tensor", (scale, zero_point, *codes)


_KEYS = ("weight_qscheme", "weight_dtype", "weight_scale", "weight_zero_point")


def _save_weight_qparams(
    destination: dict[str, Any], prefix: str, weight_qscheme: Any, weight_dtype: torch.dtype, weight_scale: Any,
    weight_zero_point: Any, weight_axis: Any,
) -> None:  # fmt: skip
    """Put how a weight is quantized into a state dict: the axis for channels only, numbers only with a scheme."""
    values = (weight_qscheme, weight_dtype, weight_scale, weight_zero_point)
    kept = values if weight_qscheme is not None else values[:2]
    destination.update({prefix + name: value for name, value in zip(_KEYS, kept, strict=False)})
    if weight_qscheme == torch.per_channel_affine:
        destination[f"{prefix}weight_axis"] = weight_axis


def _get_weight_qparam_keys(state_dict: dict[str, Any], prefix: str) -> Sequence[str]:
    """The names under which a state dict has how a weight is quantized."""
    return [name for name in (*_KEYS, "weight_axis") if prefix + name in state_dict]


def _get_weight_and_quantization_params(module: Any, wn: str) -> tuple[Any, ...]:
    """A weight of a recurrent reference module, its scheme, dtype, scale, zero point and axis, or None."""
    names = ("_qscheme", "_dtype", "_scale", "_zero_point", "_axis_int")
    return (getattr(module, wn), *(getattr(module, wn + name, None) for name in names))
