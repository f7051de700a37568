"""Activation functions on codes: clamps, which stay integers, and functions computed in float32 in between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qfx.kernels.reference.arithmetic import float32, saturate
from qfx.kernels.reference.finish import Lanes, finish, inverse_of_double, to_codes, to_float
from qfx.qparams import QParams, dequantize, quantize

SIGMOID_OUT = QParams(1.0 / 256.0, 0, dtype=torch.quint8)
"""What torch's ``sigmoid`` and ``hardsigmoid`` of a quantized tensor return."""

TANH_OUT = QParams(2.0 / 256.0, 128, dtype=torch.quint8)
"""What torch's ``tanh`` of a quantized tensor returns."""


def code_of(value: float, qparams: QParams) -> int:
    """Return the code of a constant, saturated: how a bound or a padding value becomes an integer."""
    return int(quantize(torch.tensor([value]), qparams, saturate_storage=True))


def relu(x: Tensor, qparams: QParams) -> Tensor:
    """Return the codes of ``relu(x)``: none below the zero point."""
    return saturate(x.double(), qparams, relu=True)


def clamp(x: Tensor, qparams: QParams, low: float | None = None, high: float | None = None) -> Tensor:
    """Return the codes of ``clamp(x, low, high)`` (hardtanh, relu6): bounds become codes, the rest is integers.

    Args:
        x: codes.
        qparams: per-tensor parameters, also of the result.
        low, high: bounds in real numbers; ``None`` for none.
    """
    lowest = None if low is None else code_of(low, qparams)
    highest = None if high is None else code_of(high, qparams)
    if lowest is None and highest is None:
        return x.clone()
    return torch.clamp(x, lowest, highest)


def prelu(x: Tensor, x_qparams: QParams, out: QParams, slopes: Tensor) -> Tensor:
    """Return the codes of PReLU: the value itself above zero, ``slope * value`` below.

    Args:
        x: codes ``(N, C, ...)``; of any shape for one slope.
        x_qparams, out: per-tensor parameters.
        slopes: float32, one or ``(C,)``.
    """
    values = dequantize(x, x_qparams)
    if slopes.numel() > 1:
        slopes = slopes.reshape([1, -1] + [1] * (x.dim() - 2))
    return quantize(torch.where(values > 0, values, values * slopes), out, saturate_storage=True)


def sigmoid(x: Tensor, x_qparams: QParams, out: QParams = SIGMOID_OUT) -> Tensor:
    """Return the codes of ``sigmoid(x)`` as ``torch.sigmoid`` (and ``torch.ops.quantized.sigmoid``) give them.

    The exponential is computed in float64 and rounded once; torch's float32 one can differ by its last bit, which shows
    only where the result is within 1e-7 of a tie.
    """
    values = to_float(x, x_qparams, "scalar")  # the one loop whose vectors subtract the zero point first
    return finish(1.0 / (1.0 + torch.exp(-values.double()).float()), out, "vector")


def tanh(x: Tensor, x_qparams: QParams, out: QParams = TANH_OUT) -> Tensor:
    """Return the codes of ``tanh(x)`` as ``torch.tanh`` of a quantized tensor gives them; see ``sigmoid``."""
    return _function(x, x_qparams, out, "vector", lambda v: torch.tanh(v.double()).float())


def hardsigmoid(x: Tensor, x_qparams: QParams, out: QParams = SIGMOID_OUT) -> Tensor:
    """Return the codes of ``clamp(x + 3, 0, 6) / 6``."""
    return _function(x, x_qparams, out, "vector", lambda v: torch.clamp(v + 3, 0, 6) / 6)


def hardswish(x: Tensor, x_qparams: QParams, out: QParams) -> Tensor:
    """Return the codes of ``x * clamp(x + 3, 0, 6) / 6``, bit for bit those of ``torch.ops.quantized.hardswish``."""
    values = to_float(x, x_qparams, "vector")
    return to_codes(values * torch.clamp(values + 3, 0, 6) / 6, inverse_of_double(out), out, "split")


def elu(x: Tensor, x_qparams: QParams, out: QParams, alpha: float = 1.0) -> Tensor:
    """Return the codes of ``x`` where positive, else ``alpha * (exp(x) - 1)``, as ``torch.ops.quantized.elu``."""
    return _function(
        x, x_qparams, out, "vector", lambda v: torch.where(v > 0, v, torch.expm1(v.contiguous()) * float32(alpha))
    )


def leaky_relu(
    x: Tensor, x_qparams: QParams, out: QParams, negative_slope: float = 0.01, *, lanes: Lanes = "vector"
) -> Tensor:
    """Return the codes of ``x`` where positive, else ``negative_slope * x``, as ``torch.ops.quantized.leaky_relu``."""
    return _function(x, x_qparams, out, lanes, lambda v: torch.where(v > 0, v, v * float32(negative_slope)))


def _function(
    x: Tensor, x_qparams: QParams, out: QParams, lanes: Lanes, function: Callable[[Tensor], Tensor]
) -> Tensor:
    return finish(function(to_float(x, x_qparams, lanes)), out, lanes)
