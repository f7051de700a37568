"""Convolutions and linear layers of plain ``torch.uint8`` tensors by onednn, with what follows them in one kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qfx.errors import KernelError
from qfx.kernels.cpu import has_tiles
from qfx.kernels.onednn.boundary import Number
from qfx.kernels.onednn.spec import PackedOnednn

_CONV = torch.ops.onednn.qconv_pointwise
_CONV_BINARY = torch.ops.onednn.qconv2d_pointwise.binary
_LINEAR = torch.ops.onednn.qlinear_pointwise
_LINEAR_BINARY = torch.ops.onednn.qlinear_pointwise.binary
_ANY = 3.4028234663852886e38  # the largest float32: no bound


def _post(low: float | None, high: float | None) -> tuple[str, list[float]]:
    """The name and numbers of the post-op that keeps a result between two bounds."""
    if low is None and high is None:
        return "none", []
    if low == 0.0 and high is None:
        return "relu", []
    return "hardtanh", [-_ANY if low is None else low, _ANY if high is None else high]


def _upper(high: float | None, most: int | None, scale: Number, zero_point: Number) -> float | None:
    """The lower one of a bound in real numbers and one in codes."""
    if most is None:
        return high
    top = (most - int(zero_point)) * float(scale)
    return top if high is None else min(top, high)


def conv(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    packed: PackedOnednn,
    scale: Number,
    zero_point: Number,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
) -> Tensor:
    """Convolve codes; the result is ``torch.uint8``, channels last.

    Args:
        x: codes ``(N, C, *spatial)`` or ``(C, *spatial)``, ``torch.uint8``, one to three spatial dimensions.
        x_scale, x_zero_point: of `x`; padding is with the zero point, which stands for 0.0.
        packed: the weight.
        scale, zero_point: of the result.
        low, high: bounds of the result in real numbers, inside the kernel: kernels saturate at 0..255 only, so 7-bit
            activations need their upper bound here. In three dimensions onednn takes none.
        most: the largest code of the result, in any number of dimensions; None (default) for 255.
    """
    if x.dim() == packed.rank - 1:
        return conv(x.unsqueeze(0), x_scale, x_zero_point, packed, scale, zero_point, low, high, most).squeeze(0)
    _check(x, packed)
    if _leaves_one_column(x, packed):
        wider = _wider(x, packed, int(x_zero_point))
        return _first_column(conv(wider, x_scale, x_zero_point, packed, scale, zero_point, low, high, most))
    xs, xz = float(x_scale), int(x_zero_point)
    inside = None if packed.kind == "conv3d" else most
    post, numbers = _post(low, _upper(high, inside, scale, zero_point))
    y: Tensor = _CONV(
        x.unsqueeze(2) if packed.kind == "conv1d" else x,
        xs,
        xz,
        packed.weight(xs, xz),
        packed.scale,
        packed.zero_point,
        packed.bias,
        packed.stride,
        packed.padding,
        packed.dilation,
        packed.groups,
        float(scale),
        int(zero_point),
        torch.uint8,
        post,
        numbers,
        "",
    )
    if most is not None and inside is None:
        y = y.clamp_(max=most)
    return y.squeeze(2) if packed.kind == "conv1d" else y


def conv_add(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    packed: PackedOnednn,
    other: Tensor,
    other_scale: Number,
    other_zero_point: Number,
    scale: Number,
    zero_point: Number,
    relu: bool = False,
    most: int | None = None,
) -> Tensor:
    """Convolve codes in two dimensions and add other codes, without rounding in between; then, perhaps, relu.

    Args:
        x, x_scale, x_zero_point, packed, scale, zero_point: as in `conv`.
        other: codes that broadcast to the result's shape; not written to.
        other_scale, other_zero_point: of `other`.
        relu: no code below the zero point.
        most: the largest code of the result; None (default) for 255.
    """
    if x.dim() == packed.rank - 1:
        added = (other, other_scale, other_zero_point)
        batch = conv_add(x.unsqueeze(0), x_scale, x_zero_point, packed, *added, scale, zero_point, relu, most)
        return batch.squeeze(0)
    _check(x, packed)
    if _leaves_one_column(x, packed):
        wider, twice = _wider(x, packed, int(x_zero_point)), other.expand(*_conv_shape(x, packed)[:-1], 2)
        added = (twice, other_scale, other_zero_point)
        return _first_column(conv_add(wider, x_scale, x_zero_point, packed, *added, scale, zero_point, relu, most))
    xs, xz = float(x_scale), int(x_zero_point)
    # onednn's sum adds onto its argument, in channels last.
    onto = other.expand(_conv_shape(x, packed)).clone(memory_format=torch.channels_last)
    y: Tensor = _CONV_BINARY(
        x,
        xs,
        xz,
        packed.weight(xs, xz),
        packed.scale,
        packed.zero_point,
        onto,
        packed.bias,
        packed.stride,
        packed.padding,
        packed.dilation,
        packed.groups,
        float(scale),
        int(zero_point),
        torch.uint8,
        float(other_scale),
        int(other_zero_point),
        "sum",
        1.0,
        "relu" if relu else "none",
        [],
        "",
    )
    return y if most is None else y.clamp_(max=most)


def _check(x: Tensor, packed: PackedOnednn) -> None:
    """Refuse what onednn would describe as a primitive that cannot be created."""
    if x.dim() != packed.rank or x.shape[1] != packed.in_channels:
        layout = ("N, C, L", "N, C, H, W", "N, C, D, H, W")[packed.rank - 3]
        raise KernelError(f"{packed.kind} takes ({layout}) with {packed.in_channels} channels, got {tuple(x.shape)}")


def _leaves_one_column(x: Tensor, packed: PackedOnednn) -> bool:
    """Whether a convolution with strides has one column of results, which onednn's kernels for AMX compute wrong."""
    if packed.stride[-1] == 1 or not has_tiles():
        return False
    window = packed.dilation[-1] * (packed.kernel[-1] - 1) + 1
    return int(x.shape[-1]) + 2 * packed.padding[-1] < window + packed.stride[-1]


def _wider(x: Tensor, packed: PackedOnednn, zero_point: int) -> Tensor:
    """The input with the padding, and one stride more of it, on its right: a second column of results."""
    return nn.functional.pad(x, (0, packed.stride[-1]), value=zero_point)


def _first_column(y: Tensor) -> Tensor:
    wide = y[..., :1]
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return wide.contiguous(memory_format=formats.get(y.dim(), torch.contiguous_format))


def _conv_shape(x: Tensor, packed: PackedOnednn) -> list[int]:
    """The shape of a convolution's result."""
    each = zip(x.shape[2:], packed.kernel, packed.stride, packed.padding, packed.dilation, strict=True)
    spatial = [(size + 2 * pad - dilation * (k - 1) - 1) // step + 1 for size, k, step, pad, dilation in each]
    return [x.shape[0], packed.out_channels, *spatial]


def linear(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    packed: PackedOnednn,
    scale: Number,
    zero_point: Number,
    low: float | None = None,
    high: float | None = None,
    most: int | None = None,
) -> Tensor:
    """Multiply codes ``(..., in)`` by a weight ``(out, in)``; the result is ``torch.uint8``, ``(..., out)``.

    Args: as in `conv`.
    """
    if x.numel() == 0:
        return x.new_empty((*x.shape[:-1], packed.out_channels))
    xs, xz = float(x_scale), int(x_zero_point)
    post, numbers = _post(low, _upper(high, most, scale, zero_point))
    y: Tensor = _LINEAR(
        x,
        xs,
        xz,
        packed.weight(xs, xz),
        packed.scale,
        packed.zero_point,
        packed.bias,
        float(scale),
        int(zero_point),
        torch.uint8,
        post,
        numbers,
        "",
    )
    return y


def linear_add(
    x: Tensor,
    x_scale: Number,
    x_zero_point: Number,
    packed: PackedOnednn,
    other: Tensor,
    other_scale: Number,
    other_zero_point: Number,
    scale: Number,
    zero_point: Number,
    relu: bool = False,
    most: int | None = None,
) -> Tensor:
    """Multiply codes by a weight and add other codes, without rounding in between; see `conv_add`."""
    if x.numel() == 0:
        return x.new_empty((*x.shape[:-1], packed.out_channels))
    xs, xz = float(x_scale), int(x_zero_point)
    y: Tensor = _LINEAR_BINARY(
        x,
        xs,
        xz,
        packed.weight(xs, xz),
        packed.scale,
        packed.zero_point,
        other.expand(*x.shape[:-1], packed.out_channels).clone(memory_format=torch.contiguous_format),
        packed.bias,
        float(scale),
        int(zero_point),
        torch.uint8,
        float(other_scale),
        int(other_zero_point),
        "sum",
        1.0,
        "relu" if relu else "none",
        [],
        "",
    )
    return y if most is None else y.clamp_(max=most)
