"""``torch.nn.functional`` for quantized tensors.

Where no scale and zero point are asked for, the output has those of the input. The convolutions and ``linear`` pack
their weight on every call; the modules of :mod:`qfx.nn.quantized` pack once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.kernels import codes
from qfx.kernels.packing import PackedSpec, pack_linear
from qfx.nn.errors import InputError, UnsupportedError
from qfx.nn.quantized.module import check_rank
from qfx.nn.sizes import LAYOUTS, sizes

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool2d",
    "avg_pool3d",
    "celu",
    "clamp",
    "conv1d",
    "conv2d",
    "conv3d",
    "elu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "interpolate",
    "leaky_relu",
    "linear",
    "max_pool1d",
    "max_pool2d",
    "threshold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]


def _quantized(name: str, x: Tensor) -> Tensor:
    if not x.is_quantized:
        raise InputError(
            f"Input to 'quantized.{name}' must be quantized! It is {x.dtype}; "
            f"use torch.nn.functional.{name.removeprefix('functional.')} for floats"
        )
    return x


def _conv(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
    scale: float,
    zero_point: int,
) -> Tensor:
    if padding_mode != "zeros":
        raise UnsupportedError(f"Only zero-padding is supported! Pad with {padding_mode!r} before the convolution")
    if input.dtype != torch.quint8:
        raise UnsupportedError(f"Only torch.quint8 is supported for activation tensor! It is {input.dtype}")
    if weight.dtype != torch.qint8:
        raise UnsupportedError(f"Only torch.qint8 is supported for weight tensor! It is {weight.dtype}")
    check_rank(input, dims + 2, LAYOUTS[dims])
    spec = PackedSpec(
        f"conv{dims}d",
        weight,
        bias,
        stride=sizes(stride, dims),
        padding=sizes(padding, dims),
        dilation=sizes(dilation, dims),
        groups=groups,
    )
    return getattr(torch.ops.quantized, f"conv{dims}d")(input, spec.pack(), scale, zero_point)  # type: ignore[no-any-return]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype = torch.quint8,
) -> Tensor:
    """Convolve a ``torch.quint8`` (N, C, L) with a ``torch.qint8`` weight (out, in / groups, kernel) and a float bias.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as in ``torch.nn.functional.conv1d``.
        padding_mode: ``"zeros"``.
        scale, zero_point: of the output.
        dtype: of the output, ``torch.quint8``.

    Raises:
        UnsupportedError: another padding mode or dtype.
        InputError: an input of another rank.
        KernelError: the engine selected in torch does not take the weight.
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype = torch.quint8,
) -> Tensor:
    """Convolve a ``torch.quint8`` (N, C, H, W); see :func:`conv1d`."""
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    scale: float = 1.0,
    zero_point: int = 0,
    dtype: torch.dtype = torch.quint8,
) -> Tensor:
    """Convolve a ``torch.quint8`` (N, C, D, H, W); see :func:`conv1d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point)


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    zero_point: int | None = None,
) -> Tensor:
    """Multiply a ``torch.quint8`` (..., in) with a ``torch.qint8`` weight (out, in) and add a float bias.

    ``scale`` and ``zero_point`` of the output are those of the input if not given.
    """
    scale = input.q_scale() if scale is None else scale
    zero_point = input.q_zero_point() if zero_point is None else zero_point
    return torch.ops.quantized.linear(input, pack_linear(weight, bias), scale, zero_point)  # type: ignore[no-any-return]


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """``torch.nn.functional.avg_pool2d`` of a quantized (N, C, H, W)."""
    x = _quantized("avg_pool2d", input)
    window, steps, borders = (list(sizes(v, 2)) for v in (kernel_size, stride or kernel_size, padding))
    return codes.avg_pool(x, window, steps, borders, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """``torch.nn.functional.avg_pool3d`` of a quantized (N, C, D, H, W)."""
    x = _quantized("avg_pool3d", input)
    return F.avg_pool3d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool2d`` of a quantized tensor."""
    return F.adaptive_avg_pool2d(_quantized("functional.adaptive_avg_pool2d", input), output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool3d`` of a quantized tensor."""
    return F.adaptive_avg_pool3d(_quantized("functional.adaptive_avg_pool3d", input), output_size)


def _max_pool(
    dims: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Tensor:
    if input.dtype is not torch.quint8:
        pool: Any = (torch.max_pool1d, torch.max_pool2d)[dims - 1]
        return pool(input, kernel_size, stride or [], padding, dilation, ceil_mode)  # type: ignore[no-any-return]
    window, steps, borders, gaps = (
        list(sizes(v, dims)) for v in (kernel_size, stride or kernel_size, padding, dilation)
    )
    return codes.max_pool(input, window, steps, borders, gaps, ceil_mode)


def _no_indices(wanted: bool) -> None:
    if wanted:
        raise UnsupportedError("return_indices is not yet implemented! Quantized max pools give values only")


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """``torch.nn.functional.max_pool1d`` of a quantized tensor, without indices."""
    _no_indices(return_indices)
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """``torch.nn.functional.max_pool2d`` of a quantized tensor, without indices."""
    _no_indices(return_indices)
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode)


def interpolate(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """``torch.nn.functional.interpolate`` of a quantized 4d or 5d tensor; modes nearest and (4d) bilinear."""
    return F.interpolate(_quantized("interpolate", input), size, scale_factor, mode, align_corners)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """The old name of :func:`interpolate`; warns."""
    warn("quantized.functional.upsample is deprecated. Use interpolate instead.")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The old name of bilinear :func:`interpolate` with aligned corners; warns."""
    warn("upsample_bilinear is deprecated. Use interpolate instead.")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """The old name of nearest :func:`interpolate`; warns."""
    warn("upsample_nearest is deprecated. Use interpolate instead.")
    return interpolate(input, size, scale_factor, mode="nearest")


def celu(input: Tensor, scale: float, zero_point: int, alpha: float = 1.0) -> Tensor:
    """``torch.nn.functional.celu`` to the given output scale and zero point."""
    return torch.ops.quantized.celu(_quantized("celu", input), scale, zero_point, alpha)  # type: ignore[no-any-return]


def elu(input: Tensor, scale: float, zero_point: int, alpha: float = 1.0) -> Tensor:
    """``torch.nn.functional.elu`` to the given output scale and zero point."""
    return torch.ops.quantized.elu(_quantized("elu", input), scale, zero_point, alpha)  # type: ignore[no-any-return]


def hardswish(input: Tensor, scale: float, zero_point: int) -> Tensor:
    """``torch.nn.functional.hardswish`` to the given output scale and zero point."""
    return torch.ops.quantized.hardswish(_quantized("hardswish", input), scale, zero_point)  # type: ignore[no-any-return]


def leaky_relu(
    input: Tensor,
    negative_slope: float = 0.01,
    inplace: bool = False,
    scale: float | None = None,
    zero_point: int | None = None,
) -> Tensor:
    """``torch.nn.functional.leaky_relu``, to the given output scale and zero point or those of the input.

    Raises:
        ConfigError: in place and to another scale at once.
    """
    if scale is None or zero_point is None:
        return F.leaky_relu(_quantized("leaky_relu", input), negative_slope, inplace)
    if inplace:
        raise ConfigError("Cannot rescale with `inplace`; leave out scale and zero_point, or inplace")
    return torch.ops.quantized.leaky_relu(input, negative_slope, False, scale, zero_point)  # type: ignore[no-any-return]


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """``torch.nn.functional.hardtanh`` of a quantized tensor: a clamp of the codes."""
    clamped = codes.clamp(_quantized("hardtanh", input), min_val, max_val)
    return input.copy_(clamped) if inplace else clamped


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``torch.nn.functional.hardsigmoid`` of a quantized tensor; the output has scale 1/256 and zero point 0."""
    return F.hardsigmoid(_quantized("hardsigmoid", input), inplace)


def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """The input where it is above ``threshold``, else ``value``."""
    if threshold is None or value is None:
        raise InputError(f"Input to '{'threshold' if threshold is None else 'value'}' must be specified!")
    return torch.ops.quantized.threshold(_quantized("threshold", input), threshold, value)  # type: ignore[no-any-return]


def clamp(input: Tensor, min_: float, max_: float) -> Tensor:
    """``torch.clamp`` of a quantized tensor."""
    return codes.clamp(_quantized("clamp", input), min_, max_)
