"""Ops on quantized tensors that torch leaves to the engine set when they run, made independent of it.

Weights are packed for an engine once; clamps and pools ask ``torch.backends.quantized.engine`` in every call, and under
``"qnnpack"`` (the default where there is no x86) some raise or give wrong codes; docs/engines.md lists which. Graphs of
the native target call the functions here in those cases, whatever the engine is.

They work on the storage of a quantized tensor seen as plain integers, without a copy. TorchScript compiles them, and
under an fx tracer each stays one call.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

_LARGE = 2**18
"""Elements from which on a view of the storage beats torch's own clamp."""

_STORED = {torch.quint8: torch.uint8, torch.qint8: torch.int8, torch.qint32: torch.int32}


# -- clamps --------------------------------------------------------------------------------------------------------
def clamp(
    q: Tensor, low: float | None = None, high: float | None = None, most: int | None = None, reuse: bool = False
) -> Tensor:
    """Keep the codes of a tensor between bounds; scale, zero point and shape stay.

    Args:
        q: quantized per tensor, of any shape and layout; or plain ``torch.uint8`` codes, which take `most` only.
        low, high: bounds in real numbers, rounded to codes as values are; None (default) for none.
        most: the largest code; None (default) for the dtype's. Kernels saturate at 255 whatever ``quant_max`` is.
        reuse: nobody else reads `q`, so its memory may hold the result. False by default.

    Raises:
        RuntimeError: no bound at all.

    Example:
        >>> q = torch.quantize_per_tensor(torch.tensor([-1.0, 3.0, 9.0]), 0.5, 10, torch.quint8)
        >>> clamp(q, low=0.0, high=6.0, most=20).int_repr()
        tensor([10, 16, 20], dtype=torch.uint8)
    """
    if has_torch_function_unary(q):
        made: Tensor = handle_torch_function(clamp, (q,), q, low=low, high=high, most=most, reuse=reuse)
        return made
    if not q.is_quantized:
        return q.clamp_(max=most) if reuse else q.clamp(max=most)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        lowest = _code(low, q) if low is not None else None
        highest = _code(high, q) if high is not None else None
        return _clamped(q, lowest, _least(highest, most), reuse)
    return _clamped_eagerly(q, low, high, most, reuse)


@torch.jit.unused
def _clamped_eagerly(q: Tensor, low: float | None, high: float | None, most: int | None, reuse: bool) -> Tensor:
    scale, zero_point, dtype = q.q_scale(), q.q_zero_point(), q.dtype
    lowest = None if low is None else _known_code(low, scale, zero_point, dtype)
    highest = _least(None if high is None else _known_code(high, scale, zero_point, dtype), most)
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return _clamped(q, lowest, highest, reuse)
    count = q.numel()
    if count < _LARGE and torch.backends.quantized.engine != "qnnpack":
        # The quickest way for these. Torch rounds the numbers to the same codes again.
        least = None if lowest is None else (lowest - zero_point) * scale
        return torch.clamp(q, least, None if highest is None else (highest - zero_point) * scale)
    if not reuse:
        return _clamped(q, lowest, highest, reuse)
    # The quickest way for large ones. A compiler would see that nobody reads the view, and drop it.
    codes, storage = torch.empty(0, dtype=_STORED[dtype]), q.untyped_storage()
    if storage.nbytes() == count * q.element_size():
        codes.set_(storage, 0, (count,), (1,))  # all of it, so the order does not matter
    else:
        codes.set_(storage, q.storage_offset(), q.size(), q.stride())
    codes.clamp_(lowest, highest)
    return q


def _clamped(q: Tensor, lowest: int | None, highest: int | None, reuse: bool) -> Tensor:
    """The same as a chain of results, for compilers and for where `q` must stay as it is."""
    codes = _codes_of(q)
    return _quantized_like(q, codes.clamp_(lowest, highest) if reuse else codes.clamp(lowest, highest))


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _code(value: float, q: Tensor) -> int:
    """The code of a real number in the parameters of `q`, saturated."""
    one = torch.quantize_per_tensor(torch.full([1], value), q.q_scale(), q.q_zero_point(), q.dtype)
    return int(one.int_repr().item())


@lru_cache(maxsize=4096)
def _known_code(value: float, scale: float, zero_point: int, dtype: torch.dtype) -> int:
    one = torch.quantize_per_tensor(torch.full([1], value, dtype=torch.float32), scale, zero_point, dtype)
    return int(one.int_repr())


# -- functions ---------------------------------------------------------------------------------------------------
def prelu(q: Tensor, slopes: Tensor, scale: float, zero_point: int) -> Tensor:
    """PReLU by a table of the 256 codes for each slope.

    ``torch.ops.quantized.prelu`` multiplies what is above zero by 1, rounded and saturated to the parameters of the
    slopes: with slopes up to 0.25, quantized in their range, by 0.25. It is not used.

    Args:
        q: ``torch.quint8`` per tensor, ``(N, C, ...)``; of any shape for one slope.
        slopes: quantized per tensor, one or ``(C,)``.
        scale, zero_point: of the result.

    Example:
        >>> q = torch.quantize_per_tensor(torch.tensor([-1.0, 1.0]), 0.5, 4, torch.quint8)
        >>> slopes = torch.quantize_per_tensor(torch.tensor([0.5]), 0.5, 0, torch.quint8)
        >>> prelu(q, slopes, 0.5, 1)
        tensor([-0.5000,  1.0000], size=(2,), dtype=torch.quint8,
               quantization_scheme=torch.per_tensor_affine, scale=0.5, zero_point=1)
    """
    if has_torch_function_unary(q):
        made: Tensor = handle_torch_function(prelu, (q,), q, slopes, scale, zero_point)
        return made
    values = (torch.arange(256) - q.q_zero_point()) * q.q_scale()
    bent = torch.where(values > 0, values, values * slopes.dequantize().reshape(-1, 1))
    tables = torch.quantize_per_tensor(bent, scale, zero_point, torch.quint8).int_repr()
    index = q.int_repr().to(torch.int32)
    if slopes.numel() > 1:  # each channel has a table of its own
        index = (index.transpose(1, -1) + torch.arange(0, tables.numel(), 256)).transpose(1, -1)
    return torch._make_per_tensor_quantized_tensor(tables.flatten()[index], scale, zero_point)


# -- moves -------------------------------------------------------------------------------------------------------
def roll(q: Tensor, shifts: list[int], dims: list[int]) -> Tensor:
    """``torch.roll`` of a tensor quantized per tensor, which torch does not have.

    Args:
        q: of any shape.
        shifts: places to move by, one for each of `dims`.
        dims: empty to roll the flattened tensor.

    Example:
        >>> q = torch.quantize_per_tensor(torch.arange(4.0), 1.0, 0, torch.quint8)
        >>> roll(q, [1], [0]).int_repr()
        tensor([3, 0, 1, 2], dtype=torch.uint8)
    """
    if has_torch_function_unary(q):
        made: Tensor = handle_torch_function(roll, (q,), q, shifts, dims)
        return made
    return _quantized_like(q, torch.roll(q.int_repr(), shifts, dims))


# -- pools ---------------------------------------------------------------------------------------------------------
def avg_pool(
    q: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window, of any rank, with every attribute honoured.

    As the pool of three dimensions, which no engine has taken over: the same codes, and no slower.

    Args:
        q: quantized per tensor, ``(N, C, *spatial)`` or ``(C, *spatial)`` with one to three spatial dimensions.
        kernel_size, stride, padding: one number per spatial dimension.
        ceil_mode, count_include_pad, divisor_override: as in ``torch.nn.functional.avg_pool2d``.
    """
    if has_torch_function_unary(q):
        how: tuple[Any, ...] = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        made: Tensor = handle_torch_function(avg_pool, (q,), q, *how)
        return made
    n = len(kernel_size)
    absent, single = 3 - n, q.dim() == n + 1
    x = q.unsqueeze(0) if single else q
    for _ in range(absent):
        x = x.unsqueeze(2)
    one, none = [1] * absent, [0] * absent
    window, steps, borders = one + list(kernel_size), one + list(stride), none + list(padding)
    x = F.avg_pool3d(x, window, steps, borders, ceil_mode, count_include_pad, divisor_override)
    for _ in range(absent):
        x = x.squeeze(2)
    return x.squeeze(0) if single else x


def max_pool(
    q: Tensor, kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil_mode: bool
) -> Tensor:
    """The largest code of each window, of any rank, with any attributes.

    As the pool of plain integers, which is no engine's. In three dimensions there are two, over height and width, then
    over depth: exact, and no slower than torch's own.

    Args:
        q: ``torch.quint8``, ``(N, C, *spatial)`` or ``(C, *spatial)`` with one to three spatial dimensions.
        kernel_size, stride, padding, dilation: one number per spatial dimension.
        ceil_mode: as in ``torch.nn.functional.max_pool2d``.
    """
    if has_torch_function_unary(q):
        how: tuple[Any, ...] = (kernel_size, stride, padding, dilation, ceil_mode)
        made: Tensor = handle_torch_function(max_pool, (q,), q, *how)
        return made
    n = len(kernel_size)
    single = q.dim() == n + 1
    x = _codes_of(q)
    x = x.unsqueeze(0) if single else x
    if n == 1:
        one, none = [1], [0]
        steps, gaps = one + list(stride), one + list(dilation)
        x = _max_pool2d(x.unsqueeze(2), one + list(kernel_size), steps, none + list(padding), gaps, ceil_mode)
        x = x.squeeze(2)
    elif n == 2:
        x = _max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    else:
        # Planes of all channels: that is how a tensor in channels last lies in memory.
        rows, channels, depth = x.size(0), x.size(1), x.size(2)
        x = x.transpose(1, 2).reshape([rows * depth, channels, x.size(3), x.size(4)])
        x = _max_pool2d(x, kernel_size[1:], stride[1:], padding[1:], dilation[1:], ceil_mode)
        height, width = x.size(2), x.size(3)
        x = x.reshape([rows, depth, channels, height * width]).transpose(1, 2)
        x = _max_pool2d(x, [kernel_size[0], 1], [stride[0], 1], [padding[0], 0], [dilation[0], 1], ceil_mode)
        x = x.reshape([rows, channels, x.size(2), height, width])
    return _quantized_like(q, x.squeeze(0) if single else x)


def adaptive_max_pool(q: Tensor, output_size: list[int]) -> Tensor:
    """The largest code of each of ``output_size`` windows, as ``F.adaptive_max_pool{n}d``, which takes floats only.

    Args:
        q: quantized per tensor, or plain ``torch.uint8`` codes; ``(N, C, *spatial)`` or ``(C, *spatial)``.
        output_size: windows along each spatial dimension; -1 keeps a dimension as it is.

    Example:
        >>> codes = torch.tensor([[[1, 7, 3, 4, 5]]], dtype=torch.uint8)
        >>> adaptive_max_pool(codes, [2])
        tensor([[[7, 5]]], dtype=torch.uint8)
    """
    if has_torch_function_unary(q):
        made: Tensor = handle_torch_function(adaptive_max_pool, (q,), q, output_size)
        return made
    x = _codes_of(q) if q.is_quantized else q
    for i, windows in enumerate(output_size):
        x = _largest_along(x, i - len(output_size), windows)
    return _quantized_like(q, x) if q.is_quantized else x


def kept_sizes(output_size: Sequence[int | None]) -> list[int]:
    """Numbers of windows as `adaptive_max_pool` takes them: -1 for None, which keeps a dimension as it is."""
    return [-1 if size is None else size for size in output_size]


def _largest_along(x: Tensor, dim: int, windows: int) -> Tensor:
    size = x.size(dim)
    if windows < 0 or windows == size:
        return x
    if windows > 0 and size % windows == 0:  # none of them overlap
        parts: Tensor = x.unflatten(dim, [windows, size // windows])
        return parts.amax(dim)
    found = []
    for i in range(windows):
        start = i * size // windows
        found.append(x.narrow(dim, start, -(-(i + 1) * size // windows) - start).amax(dim, True))
    return torch.cat(found, dim)


def _max_pool2d(
    x: Tensor, kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int], ceil_mode: bool
) -> Tensor:
    pooled: Tensor = torch.ops.quantized.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pooled


# -- resizing ------------------------------------------------------------------------------------------------------
def interpolate_line(
    q: Tensor,
    size: int | None = None,
    scale_factor: float | None = None,
    mode: str = "linear",
    align_corners: bool | None = None,
) -> Tensor:
    """Resizing of ``(N, C, L)``, for which torch has no quantized kernel: that of pictures one row high.

    Args:
        q: quantized per tensor.
        size, scale_factor, align_corners: as in ``torch.nn.functional.interpolate``.
        mode: ``"linear"``, ``"nearest"`` or ``"nearest-exact"``.

    Example:
        >>> q = torch.quantize_per_tensor(torch.tensor([[[0.0, 2.0]]]), 0.5, 0, torch.quint8)
        >>> interpolate_line(q, size=3, align_corners=True).int_repr()
        tensor([[[0, 2, 4]]], dtype=torch.uint8)
    """
    if has_torch_function_unary(q):
        made: Tensor = handle_torch_function(interpolate_line, (q,), q, size, scale_factor, mode, align_corners)
        return made
    sizes = [1, size] if size is not None else None
    scales = [1.0, scale_factor] if scale_factor is not None else None
    in_two = "bilinear" if mode == "linear" else mode
    return F.interpolate(q.unsqueeze(2), sizes, scales, in_two, align_corners).squeeze(2)


# -- storage -------------------------------------------------------------------------------------------------------
# `set_` wants its source contiguous: a tensor without elements stands for the storage.
def _codes_of(q: Tensor) -> Tensor:
    """The codes of a quantized tensor as plain integers, on the same storage."""
    codes = torch.empty([0], dtype=torch.uint8)
    if q.dtype == torch.qint8:
        codes = torch.empty([0], dtype=torch.int8)
    elif q.dtype == torch.qint32:
        codes = torch.empty([0], dtype=torch.int32)
    codes.set_(q.as_strided([0], [1]), 0, q.size(), q.stride())  # type: ignore[call-overload]
    return codes


def _quantized_like(q: Tensor, codes: Tensor) -> Tensor:
    """A quantized tensor of these codes, on their storage, with the parameters of `q`."""
    made: Tensor = torch._empty_affine_quantized([0], scale=q.q_scale(), zero_point=q.q_zero_point(), dtype=q.dtype)
    made.set_(codes.as_strided([0], [1]), 0, codes.size(), codes.stride())  # type: ignore[call-overload]
    return made
