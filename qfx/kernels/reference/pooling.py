"""Pools, means and resizing: scale and zero point of the input are kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels.reference.arithmetic import float32, fma
from qfx.kernels.reference.finish import to_codes
from qfx.qparams import QParams, dequantize, quantize

Window = tuple[int, int, int]
"""First and one-past-last index of a window along one dimension, and the count it is divided by."""


def max_pool(
    x: Tensor,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the largest code of each window: 1d, 2d or 3d, arguments as in ``torch.nn.functional``, any layout."""
    pool: Callable[..., Tensor] = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[x.dim()]
    return pool(x.double(), kernel, stride, padding, dilation, ceil_mode).to(x.dtype)


def adaptive_max_pool(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Return the largest code of each window: 1d, 2d or 3d, ``output_size`` as in ``torch.nn.functional``."""
    pools = {3: F.adaptive_max_pool1d, 4: F.adaptive_max_pool2d, 5: F.adaptive_max_pool3d}
    pool: Callable[..., Tensor] = pools[x.dim()]
    return pool(x.double(), output_size).to(x.dtype)


def avg_pool(
    x: Tensor,
    qparams: QParams,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the codes of an average pool, bit for bit those of ``F.avg_pool{1,2,3}d`` of a quantized tensor.

    Sums are integers; one product with the reciprocal of the count follows. Contiguous input adds the zero point before
    rounding, channels-last input after it, so an average of codes that is a tie goes either way. Channels that do not
    fill a vector (channels-last only) round as contiguous input does: at most one code from what this returns.

    Args:
        x: codes ``(N, C, *spatial)``, in the memory format the kernel would see.
        qparams: parameters of input and result.
        kernel, stride, padding, ceil_mode, count_include_pad, divisor_override: as in ``torch.nn.functional``.
    """
    dims = x.dim() - 2
    kernels, pads = _each(kernel, dims), _each(padding, dims)
    strides = kernels if stride is None else _each(stride, dims)
    windows = [
        _windows(size, k, s, p, ceil_mode, count_include_pad)
        for size, k, s, p in zip(x.shape[2:], kernels, strides, pads, strict=True)
    ]
    sums, counts = _window_sums(x.double() - qparams.scalars()[1], windows)
    if divisor_override is not None:
        counts = torch.full_like(counts, divisor_override)
    return to_codes(float32(sums), 1.0 / float32(counts), qparams, "split" if _channels_last(x) else "plain")


def adaptive_avg_pool(x: Tensor, qparams: QParams, output_size: int | Sequence[int | None]) -> Tensor:
    """Return the codes of an adaptive average pool, bit for bit those of ``F.adaptive_avg_pool{1,2,3}d``.

    Arithmetic as ``avg_pool``, except that channels-last input multiplies and adds in one step.

    Args:
        x: codes ``(N, C, *spatial)``, in the memory format the kernel would see.
        qparams: parameters of input and result.
        output_size: size along each spatial dimension, ``None`` to keep it.
    """
    sizes = [output_size] * (x.dim() - 2) if isinstance(output_size, int) else list(output_size)
    windows = [
        [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        for size, out in zip(x.shape[2:], [o or s for o, s in zip(sizes, x.shape[2:], strict=True)], strict=True)
    ]
    counted = [[(start, end, end - start) for start, end in axis] for axis in windows]
    sums, counts = _window_sums(x.double() - qparams.scalars()[1], counted)
    return to_codes(float32(sums), 1.0 / float32(counts), qparams, "fused" if _channels_last(x) else "plain")


def mean(x: Tensor, qparams: QParams, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Return the codes of ``torch.mean`` of a quantized tensor, bit for bit.

    Over the innermost dimensions of a contiguous tensor the sum is an integer, divided once; otherwise the mean is
    taken of dequantized floats.

    Args:
        x: codes, in the memory format the kernel would see.
        qparams: parameters of input and result.
        dim: dimensions to reduce, all by default.
        keepdim: keep them with size 1.
    """
    dims = sorted(d % x.dim() for d in dim) if dim else list(range(x.dim()))
    inner = x.is_contiguous() and dims == list(range(x.dim() - len(dims), x.dim())) and len(dims) < x.dim()
    if not inner:
        values = dequantize(x, qparams).mean(dims, keepdim)
        return quantize(values, qparams, saturate_storage=True).reshape(values.shape)
    count = float(torch.tensor([x.shape[d] for d in dims]).prod())
    sums = float32((x.double() - qparams.scalars()[1]).sum(dims, keepdim))
    return to_codes(sums / count, float32(1.0), qparams, "plain")


def interpolate_nearest(x: Tensor, size: Sequence[int], *, exact: bool = False) -> Tensor:
    """Return the codes of nearest (or nearest-exact) resizing to ``size``: indices only."""
    return F.interpolate(x.double(), size=list(size), mode="nearest-exact" if exact else "nearest").to(x.dtype)


def interpolate_bilinear(
    x: Tensor,
    qparams: QParams,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    scales: tuple[float | None, float | None] = (None, None),
) -> Tensor:
    """Return the codes of bilinear resizing to ``size``, bit for bit those of ``F.interpolate`` of a quantized tensor.

    Weighted sums are of raw codes in float32; channels-last input uses fused products.

    Args:
        x: codes ``(N, C, H, W)``, in the memory format the kernel would see.
        qparams: parameters of input and result.
        size: ``(H, W)`` of the result.
        align_corners: as in ``torch.nn.functional``.
        scales: the scale factors, where resizing was asked for by factor: steps are their reciprocals.
    """
    fused = _channels_last(x)
    rows = _linear_taps(x.shape[2], size[0], align_corners, scales[0], fused)
    columns = _linear_taps(x.shape[3], size[1], align_corners, scales[1], fused)
    codes = x.float()

    def blend(weights: tuple[Tensor, Tensor], first: Tensor, second: Tensor) -> Tensor:
        near, far = (w.expand(first.shape) for w in weights)
        return fma(far, second, near * first) if fused else near * first + far * second

    def row(index: Tensor) -> Tensor:
        line = codes[:, :, index]
        return blend(columns[2:], line[..., columns[0]], line[..., columns[1]])

    tall = (rows[2].unsqueeze(1), rows[3].unsqueeze(1))
    values = blend(tall, row(rows[0]), row(rows[1])) - qparams.scalars()[1]
    return to_codes(values, float32(1.0), qparams, "plain")


def _linear_taps(
    size: int, out: int, align_corners: bool, scale: float | None, fused: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps = torch.arange(out, dtype=torch.float32)
    if align_corners:
        source = float32(size - 1) / float32(max(out - 1, 1)) * steps
    else:
        ratio = float32(size) / float32(out) if scale is None else float32(1.0 / scale)
        source = fma(ratio, steps + 0.5, float32(-0.5)) if fused else ratio * (steps + 0.5) - 0.5
        source = source.clamp_min(0)
    first = source.floor().long().clamp_max(size - 1)
    far = source - first.float()
    return first, (first + 1).clamp_max(size - 1), 1.0 - far, far


def _channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value)


def _windows(size: int, k: int, s: int, p: int, ceil_mode: bool, count_include_pad: bool) -> list[Window]:
    last = size + 2 * p - k
    out = (-(-last // s) if ceil_mode else last // s) + 1
    if ceil_mode and (out - 1) * s >= size + p:  # a last window must begin inside the input or its left padding
        out -= 1
    windows = []
    for i in range(out):
        start, end = i * s - p, min(i * s - p + k, size + p)
        inside = max(start, 0), min(end, size)
        windows.append((*inside, end - start if count_include_pad else inside[1] - inside[0]))
    return windows


def _window_sums(values: Tensor, windows: Sequence[Sequence[Window]]) -> tuple[Tensor, Tensor]:
    sums = values
    for axis, axis_windows in enumerate(windows, start=2):
        sums = torch.stack([sums.narrow(axis, a, b - a).sum(axis) for a, b, _ in axis_windows], axis)
    counts = torch.tensor([float(torch.tensor(c).prod()) for c in _counts(windows)], dtype=torch.float64)
    return sums, counts.reshape([len(axis) for axis in windows])


def _counts(windows: Sequence[Sequence[Window]]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*([count for _, _, count in axis] for axis in windows))
