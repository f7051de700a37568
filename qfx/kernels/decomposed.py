"""``torch.ops.quantized_decomposed``: quantizing and dequantizing plain integers, with every parameter an argument.

Exporters read these operators. Names and signatures are those PyTorch defines with its deprecated package; `registered`
defines them where PyTorch does not. Arithmetic, for codes: ``clamp(round(x * (1 / scale)) + zero_point)``, in float32.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from qfx.errors import KernelError
from qfx.qparams import EPS

NAMESPACE = "quantized_decomposed"

# An operator can be defined once a process, and torch's compiler imports the file below while PyTorch has it. It goes
# first, then, or importing it later would fail.
_DEFINED_BY = "torch.ao.quantization.fx._decomposed"

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def registered() -> Any:
    """Return ``torch.ops.quantized_decomposed`` with its operators, defined at the first call.

    Example:
        >>> registered().quantize_per_tensor(torch.tensor([0.5, -9.0]), 0.1, 3, -128, 127, torch.int8)
        tensor([  8, -87], dtype=torch.int8)
    """
    operators = getattr(torch.ops, NAMESPACE)
    if not hasattr(operators, "quantize_per_tensor") and not _defined_by_torch():
        library()
    return operators


@lru_cache(maxsize=1)
def library() -> torch.library.Library:
    """Define the operators once a process, and return the library that holds them; `registered` asks PyTorch first."""
    return define(NAMESPACE)


def _defined_by_torch() -> bool:
    try:
        if importlib.util.find_spec(_DEFINED_BY) is None:
            return False
    except ImportError:  # not even its parent is there
        return False
    importlib.import_module(_DEFINED_BY)
    return True


def define(namespace: str) -> torch.library.Library:
    """Define the operators in a namespace, for as long as the library returned is kept."""
    library = torch.library.Library(namespace, "FRAGMENT")
    for signature, function in _OPERATORS:
        library.define(signature)
        name = signature.partition("(")[0]
        library.impl(name, function, _KEYS.get(name, "CompositeExplicitAutograd"))
    return library


# -- checks --------------------------------------------------------------------------------------------------------
def _floats(x: Tensor, allowed: tuple[torch.dtype, ...] = _FLOATS) -> Tensor:
    if x.dtype not in allowed:
        raise KernelError(f"quantizing takes {', '.join(map(str, allowed))}; got {x.dtype}")
    return x.float()


def _range(quant_min: int, quant_max: int, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    if not limits.min <= quant_min < quant_max <= limits.max:
        raise KernelError(f"codes {quant_min}..{quant_max} are not in {dtype}, which has {limits.min}..{limits.max}")


def _codes(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype:
        raise KernelError(f"these are codes of {dtype}; got a tensor of {x.dtype}")


def _one(value: Tensor, what: str) -> Tensor:
    if value.numel() != 1:
        raise KernelError(f"{what} of a whole tensor is one number; got {value.numel()}")
    return value.reshape([])


def _along(value: Tensor, x: Tensor, axis: int) -> Tensor:
    if not -x.dim() <= axis < x.dim():
        raise KernelError(f"a tensor of shape {tuple(x.shape)} has no axis {axis}")
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.reshape(shape)


def _grouped(x: Tensor, group_size: int) -> Tensor:
    if group_size < 2 or x.shape[-1] % group_size:
        raise KernelError(f"groups of {group_size} do not divide rows of {x.shape[-1]}")
    return x.reshape(-1, group_size)


# -- one scale -----------------------------------------------------------------------------------------------------
def _quantize(x: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype) -> Tensor:
    _range(quant_min, quant_max, dtype)
    return (_floats(x) * (1.0 / scale)).round_().add_(zero_point).clamp_(quant_min, quant_max).to(dtype)


def _quantize_by_tensors(
    x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: Any, quant_max: Any, dtype: torch.dtype
) -> Tensor:
    if not isinstance(quant_min, Tensor):
        _range(quant_min, quant_max, dtype)
    inverse = (1.0 / _one(scale, "the scale").double()).float()
    codes = (_floats(x) * inverse).round_() + _one(zero_point, "the zero point")
    return codes.clamp(quant_min, quant_max).to(dtype)


def _dequantize(
    x: Tensor,
    scale: Any,
    zero_point: Any,
    quant_min: Any,
    quant_max: Any,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    _codes(x, dtype)
    if isinstance(scale, Tensor):
        scale, zero_point = _one(scale, "the scale"), _one(zero_point, "the zero point")
    values: Tensor = (x.to(out_dtype or torch.float32) - zero_point) * scale
    return values


def _extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype not in _FLOATS:
        raise KernelError(f"quantizing takes {', '.join(map(str, _FLOATS))}; got {x.dtype}")
    low, high = torch.aminmax(x)
    return low.clamp(max=0).reshape(1), high.clamp(min=0).reshape(1)


def _includes_zero(quant_min: int, quant_max: int) -> None:
    if not quant_min <= 0 <= quant_max or quant_min >= quant_max:
        raise KernelError(f"codes {quant_min}..{quant_max} do not include 0, which stands for no other number")


def _choose(x: Tensor, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    _includes_zero(quant_min, quant_max)
    low, high = _extremes(x)
    scale = ((high - low) / float(quant_max - quant_min)).float().clamp(min=eps)
    zero_point = quant_min - torch.round(low / scale).to(torch.int)
    return scale.double(), zero_point.clamp(quant_min, quant_max).to(torch.int64)


def _choose_symmetric(
    x: Tensor, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    _includes_zero(quant_min, quant_max)
    low, high = _extremes(x)
    scale = (torch.maximum(-low, high) / (float(quant_max - quant_min) / 2)).float().clamp(min=eps).double()
    return scale, torch.full_like(scale, 128 if dtype == torch.uint8 else 0, dtype=torch.int64)


# -- a scale for each channel, token or group ----------------------------------------------------------------------
def _quantize_channels(
    x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    _range(quant_min, quant_max, dtype)
    codes = (_floats(x) * _along((1.0 / scales).float(), x, axis)).round_()
    return codes.add_(_along(zero_points, x, axis)).clamp_(quant_min, quant_max).to(dtype)


def _dequantize_channels(
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    _codes(x, dtype)
    made = out_dtype or torch.float32
    values = x.to(made)
    if zero_points is not None:
        values = values - _along(zero_points, x, axis).to(made)
    factors = _along(scales, x, axis)
    return (values.to(torch.promote_types(factors.dtype, torch.float32)) * factors).to(made)


def _choose_tokens(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if dtype != torch.int8:
        raise KernelError(f"symmetric codes of tokens are torch.int8; got {dtype}")
    most = x.abs().amax(-1, keepdim=True)
    scale = (most.float() if x.dtype == torch.float16 else most).clamp(min=1e-5).div(127)
    return scale, torch.zeros_like(scale)


def _choose_tokens_asymmetric(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and zero point for codes -128..127, as XNNPACK chooses them.

    The zero point is rounded from the end of the range where that is the smaller error.
    """
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255.0).clamp(min=EPS)
    below, above = low / scale, high / scale
    zero_point = torch.where((-128 + below) + (127 + above) > 0, -128 - below, 127 - above)
    return scale.double(), zero_point.clamp(-128, 127).round().to(torch.int64)


def _quantize_tokens(
    x: Tensor, scales: Tensor, zero_points: Tensor, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    _range(quant_min, quant_max, dtype)
    return x.mul(1.0 / scales).add(zero_points).round().clamp(quant_min, quant_max).to(dtype)


def _dequantize_tokens(
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    output_dtype: torch.dtype,
) -> Tensor:
    return ((x - zero_points) * scales).to(output_dtype)


def _quantize_groups(
    x: Tensor, scales: Tensor, zero_points: Tensor, quant_min: int, quant_max: int, dtype: torch.dtype, group_size: int
) -> Tensor:
    rows = _grouped(x, group_size)
    codes = rows.div(scales.reshape(-1, 1)).add(zero_points.reshape(-1, 1)).round()
    return codes.clamp(quant_min, quant_max).to(dtype).reshape_as(x)


def _dequantize_groups(
    x: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    group_size: int,
    output_dtype: torch.dtype,
) -> Tensor:
    rows = _grouped(x, group_size)
    if zero_points is not None:
        rows = rows - zero_points.reshape(-1, 1)
    return rows.mul(scales.reshape(-1, 1)).reshape_as(x).to(output_dtype)


class _RoundChannels(torch.autograd.Function):
    """Quantize and dequantize; gradients go through where nothing was cut off (straight-through estimator)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, quant_min: int, quant_max: int
    ) -> Tensor:
        scale, zero_point = _along(scales, x, axis), _along(zero_points, x, axis)
        codes = torch.round(x * (1.0 / scale)) + zero_point
        ctx.save_for_backward((codes >= quant_min) & (codes <= quant_max))
        return (codes.clamp(quant_min, quant_max) - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        return grads[0] * kept, None, None, None, None, None


def _round_channels(
    x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    return _RoundChannels.apply(x, scales, zero_points, axis, quant_min, quant_max)  # type: ignore[no-any-return]


# -- the table -----------------------------------------------------------------------------------------------------
_RANGE = "int quant_min, int quant_max, ScalarType dtype"
_OUT = ", *, ScalarType? out_dtype=None) -> Tensor"
_TENSORS = "Tensor input, Tensor scale, Tensor zero_point"
_CHOOSE = "(Tensor input, int quant_min, int quant_max, float eps, ScalarType dtype) -> (Tensor, Tensor)"
_CHOOSE_TOKENS = "(Tensor input, ScalarType dtype) -> (Tensor, Tensor)"

_OPERATORS: Sequence[tuple[str, Callable[..., Any]]] = (
    (f"quantize_per_tensor(Tensor input, float scale, int zero_point, {_RANGE}) -> Tensor", _quantize),
    (f"quantize_per_tensor.tensor({_TENSORS}, {_RANGE}) -> Tensor", _quantize_by_tensors),
    (f"quantize_per_tensor.tensor2({_TENSORS}, {_RANGE.replace('int', 'Tensor')}) -> Tensor", _quantize_by_tensors),
    (f"dequantize_per_tensor(Tensor input, float scale, int zero_point, {_RANGE}{_OUT}", _dequantize),
    (f"dequantize_per_tensor.tensor({_TENSORS}, {_RANGE}{_OUT}", _dequantize),
    (f"dequantize_per_tensor.tensor2({_TENSORS}, {_RANGE.replace('int', 'Tensor')}{_OUT}", _dequantize),
    (f"choose_qparams.tensor{_CHOOSE}", _choose),
    (f"choose_qparams_symmetric.tensor{_CHOOSE}", _choose_symmetric),
    (
        f"quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, {_RANGE}) -> Tensor",
        _quantize_channels,
    ),
    (
        f"dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, {_RANGE}{_OUT}",
        _dequantize_channels,
    ),
    (f"choose_qparams_per_token{_CHOOSE_TOKENS}", _choose_tokens),
    (f"choose_qparams_per_token_asymmetric{_CHOOSE_TOKENS}", _choose_tokens_asymmetric),
    (f"_choose_qparams_per_token_asymmetric_impl{_CHOOSE_TOKENS}", _choose_tokens_asymmetric),
    (f"quantize_per_token(Tensor input, Tensor scales, Tensor zero_points, {_RANGE}) -> Tensor", _quantize_tokens),
    (
        f"dequantize_per_token(Tensor input, Tensor scales, Tensor zero_points, {_RANGE}, ScalarType output_dtype)"
        " -> Tensor",
        _dequantize_tokens,
    ),
    (
        f"quantize_per_channel_group(Tensor input, Tensor scales, Tensor zero_points, {_RANGE}, int group_size)"
        " -> Tensor",
        _quantize_groups,
    ),
    (
        f"dequantize_per_channel_group(Tensor input, Tensor scales, Tensor? zero_points, {_RANGE}, int group_size, "
        "ScalarType output_dtype) -> Tensor",
        _dequantize_groups,
    ),
    (
        "fake_quant_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int quant_min, "
        "int quant_max) -> Tensor",
        _round_channels,
    ),
    ("convert_element_type.no_fuse(Tensor input, ScalarType dtype) -> Tensor", torch.Tensor.to),
)
_KEYS = {
    "fake_quant_per_channel": "CompositeImplicitAutograd",
    "_choose_qparams_per_token_asymmetric_impl": "CompositeImplicitAutograd",
}
