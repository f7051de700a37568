"""Convolutions (1d to 3d, transposed or not) and linear layers on integer codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels.reference.arithmetic import Engine, requantize_matmul
from qfx.kernels.reference.overflow import linear_sums_16bit
from qfx.qparams import QParams

_CONV: dict[tuple[int, bool], Callable[..., Tensor]] = {
    (1, False): F.conv1d,
    (2, False): F.conv2d,
    (3, False): F.conv3d,
    (1, True): F.conv_transpose1d,
    (2, True): F.conv_transpose2d,
    (3, True): F.conv_transpose3d,
}


def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    x_qparams: QParams,
    w_qparams: QParams,
    out: QParams,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
    relu: bool = False,
    clamp: tuple[int, int] | None = None,
    engine: Engine = "fbgemm",
) -> Tensor:
    """Return the codes of a quantized convolution, bit for bit those of ``torch.ops.quantized.conv{1,2,3}d[_relu]``.

    Padding is with the input's zero point, which stands for 0.0. (Where onednn has no kernel and falls back to plain
    loops, on AVX2 for transposed convolutions whose groups are not multiples of four channels, it rounds yet another
    way: 3 codes of 100,000 constructed at random differed, by one.)

    Args:
        x: codes ``(N, C, *spatial)``, one to three spatial dimensions.
        w: codes ``(out, C // groups, *kernel)``; ``(C, out // groups, *kernel)`` where ``transposed``.
        bias: float32 ``(out,)`` or ``None``.
        x_qparams, w_qparams, out: parameters of input (per tensor), weight (per tensor or output channel) and result.
        stride, padding, dilation, groups, output_padding: as in ``torch.nn.functional``; defaults too.
        transposed: a transposed convolution.
        relu, clamp, engine: as ``requantize_matmul``.

    Raises:
        KernelError: ``engine`` is unknown.

    Example:
        >>> q = QParams(1.0, 0, dtype=torch.quint8)
        >>> conv(torch.tensor([[[1, 2, 3]]]), torch.tensor([[[1, 1]]]), None, q, q, q)
        tensor([[[3, 5]]], dtype=torch.uint8)
    """
    axis = 1 if transposed else 0
    weight = centered(w, w_qparams, axis)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if transposed:
        attrs["output_padding"] = output_padding
    # float64 adds integers below 2**53 exactly, in any order
    acc = _CONV[x.dim() - 2, transposed](centered(x, x_qparams), weight, **attrs)
    codes = requantize_matmul(
        acc.movedim(1, -1), bias, x_qparams, w_qparams, out, engine=engine, kind="conv", relu=relu, clamp=clamp
    )
    return codes.movedim(-1, 1)


def linear(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    x_qparams: QParams,
    w_qparams: QParams,
    out: QParams,
    *,
    relu: bool = False,
    clamp: tuple[int, int] | None = None,
    engine: Engine = "fbgemm",
    saturate16: bool = False,
) -> Tensor:
    """Return the codes of a quantized linear layer, bit for bit those of ``torch.ops.quantized.linear[_relu]``.

    Args:
        x: codes ``(..., in_features)``.
        w: codes ``(out_features, in_features)``.
        bias: float32 ``(out_features,)`` or ``None``.
        x_qparams, w_qparams, out: parameters of input (per tensor), weight (per tensor or output feature) and result.
        relu, clamp, engine: as ``requantize_matmul``.
        saturate16: add products of neighbours in 16 bits, as CPUs without VNNI do (see ``overflow``).

    Raises:
        KernelError: ``engine`` is unknown.
    """
    if saturate16:
        acc = linear_sums_16bit(x, w, int(x_qparams.scalars()[1]))
    else:
        acc = centered(x, x_qparams) @ centered(w, w_qparams, 0).T
    return requantize_matmul(acc, bias, x_qparams, w_qparams, out, engine=engine, kind="linear", relu=relu, clamp=clamp)


def centered(codes: Tensor, qparams: QParams, axis: int | None = None) -> Tensor:
    """Codes minus their zero point, as float64; one zero point per channel along ``axis`` where there are several."""
    zero_point = torch.as_tensor(qparams.zero_point, dtype=torch.float64)
    if axis is not None and zero_point.numel() > 1:
        shape = [1] * codes.dim()
        shape[axis] = -1
        zero_point = zero_point.reshape(shape)
    return codes.double() - zero_point
