"""Normalization and padding of codes, and the move torch has no quantized form of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels.reference.activations import code_of
from qfx.kernels.reference.arithmetic import float32, fma, saturate
from qfx.kernels.reference.finish import inverse, to_codes
from qfx.qparams import QParams


def batch_norm(
    x: Tensor,
    x_qparams: QParams,
    out: QParams,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float = 1e-5,
    *,
    relu: bool = False,
) -> Tensor:
    """Return the codes of a batch norm in eval mode, bit for bit those of ``torch.ops.quantized.batch_norm2d[_relu]``.

    (And 1d, 3d.) One fused multiply-add of ``code - zero_point`` per element, by factors rounded in float32.

    Args:
        x: codes ``(N, C, ...)``.
        x_qparams, out: per-tensor parameters.
        weight, bias: float32 ``(C,)``; 1 and 0 if ``None``.
        running_mean, running_var: float32 ``(C,)``.
        eps: added to the variance, 1e-5 by default.
        relu: no code below the zero point.
    """
    gain = torch.rsqrt(running_var + eps) if weight is None else 1.0 / torch.sqrt(running_var + eps) * weight
    offset = -running_mean * gain if bias is None else bias - running_mean * gain
    alpha = gain * (float32(x_qparams.scale) / float32(out.scale))
    beta = offset / float32(out.scale)
    shape = [1, -1] + [1] * (x.dim() - 2)
    centered = x.float() - x_qparams.scalars()[1]
    rounded = torch.round(fma(centered, alpha.reshape(shape), beta.reshape(shape)))
    return saturate(rounded.double() + out.scalars()[1], out, relu=relu)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    x_qparams: QParams,
    out: QParams,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return the codes of a layer norm, bit for bit those of ``torch.ops.quantized.layer_norm``.

    Mean and mean square are of integer sums; the rest is float32.

    Args:
        x: codes ``(..., *normalized_shape)``.
        normalized_shape: the trailing dimensions to normalize over.
        x_qparams, out: per-tensor parameters.
        weight, bias: float32 of ``normalized_shape``; 1 and 0 if ``None``.
        eps: added to the variance, 1e-5 by default.
    """
    dims = list(range(x.dim() - len(normalized_shape), x.dim()))
    count = float(torch.tensor(list(normalized_shape)).prod())
    codes = x.double()
    mean = float32(codes.sum(dims, keepdim=True)) / count
    variance = ((codes * codes).sum(dims, keepdim=True) / count - mean.double().square()).float().clamp_min(0.0)
    scale = float32(x_qparams.scale)
    factor = scale / torch.sqrt(fma(variance * scale, scale, float32(eps)))
    values = (x.float() - x_qparams.scalars()[1] - (mean - x_qparams.scalars()[1])) * factor
    if weight is not None:
        values = values * weight + (0.0 if bias is None else bias)
    return to_codes(values, inverse(out), out, "split")


def instance_norm(
    x: Tensor,
    x_qparams: QParams,
    out: QParams,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return the codes of an instance norm: a layer norm of each channel of each sample, scaled by channel.

    Equal to ``torch.ops.quantized.instance_norm``, but for about one code in a million next to a tie.

    Args:
        x: codes ``(N, C, ...)``.
        x_qparams, out: per-tensor parameters.
        weight, bias: float32 ``(C,)``; 1 and 0 if ``None``.
        eps: added to the variance, 1e-5 by default.
    """
    flat = x.flatten(2)
    gamma, beta = (None if value is None else value.reshape(-1, 1) for value in (weight, bias))
    return layer_norm(flat, flat.shape[2:], x_qparams, out, gamma, beta, eps).reshape(x.shape)


def pad(x: Tensor, qparams: QParams, padding: Sequence[int], value: float = 0.0, mode: str = "constant") -> Tensor:
    """Return padded codes: ``constant`` fills with the code of ``value`` (0.0 is the zero point); others copy codes.

    Args:
        x: codes.
        qparams: parameters of input and result.
        padding: as in ``torch.nn.functional.pad``, last dimension first.
        value: the constant, 0.0 by default; saturated.
        mode: any of ``torch.nn.functional.pad``.
    """
    if mode == "constant":
        return F.pad(x, list(padding), value=code_of(value, qparams))
    return F.pad(x.double(), list(padding), mode=mode).to(x.dtype)


def roll(x: Tensor, qparams: QParams, shifts: Sequence[int], dims: Sequence[int]) -> Tensor:
    """Return codes that were moved on by `shifts` along `dims`, those at the end to the front; as ``torch.roll``."""
    return torch.roll(x, list(shifts), list(dims))
