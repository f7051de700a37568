"""Sums, products and concatenation of quantized tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qfx.kernels.reference.arithmetic import Engine, check_engine, float32, requantize, saturate, stored_range
from qfx.kernels.reference.finish import Lanes, finish, inverse, inverse_of_double, to_codes, to_float
from qfx.qparams import QParams, dequantize, quantize

QNNPACK_BITS = 22  # qnnpack's sum is in fixed point: the larger multiplier has this many bits


def add(
    a: Tensor,
    b: Tensor,
    a_qparams: QParams,
    b_qparams: QParams,
    out: QParams,
    *,
    relu: bool = False,
    lanes: Lanes = "vector",
    engine: Engine = "fbgemm",
) -> Tensor:
    """Return the codes of ``a + b``, bit for bit those of ``torch.ops.quantized.add[_relu]``.

    Args:
        a, b: codes of equal shape.
        a_qparams, b_qparams, out: per-tensor parameters.
        relu: no code below the zero point.
        lanes: see ``finish.Lanes``.
        engine: qnnpack (while it is ``torch.backends.quantized.engine``) adds in fixed point and rounds ties away from
            zero; the others share one float32 loop.
    """
    check_engine(engine)
    if engine == "qnnpack":
        return _add_fixed_point(a, b, a_qparams, b_qparams, out, relu)
    return finish(to_float(a, a_qparams, lanes) + to_float(b, b_qparams, lanes), out, lanes, relu=relu)


def _add_fixed_point(a: Tensor, b: Tensor, a_q: QParams, b_q: QParams, out: QParams, relu: bool) -> Tensor:
    ratios = torch.stack([float32(a_q.scale) / float32(out.scale), float32(b_q.scale) / float32(out.scale)]).double()
    shift = QNNPACK_BITS - int(torch.frexp(ratios.max()).exponent)
    factors = torch.round(ratios * 2.0**shift)
    acc = (a.double() - float(a_q.zero_point)) * factors[0] + (b.double() - float(b_q.zero_point)) * factors[1]
    rounded = acc.sign() * torch.floor(acc.abs() / 2.0**shift + 0.5)
    return saturate(rounded + out.scalars()[1], out, relu=relu)


def mul(a: Tensor, b: Tensor, a_qparams: QParams, b_qparams: QParams, out: QParams, *, relu: bool = False) -> Tensor:
    """Return the codes of ``a * b``, bit for bit those of ``torch.ops.quantized.mul[_relu]``: one integer product each.

    Args:
        a, b: codes of equal shape.
        a_qparams, b_qparams, out: per-tensor parameters.
        relu: no code below the zero point.
    """
    product = (a.double() - float(a_qparams.zero_point)) * (b.double() - float(b_qparams.zero_point))
    return requantize(product, float32(a_qparams.scale) * float32(b_qparams.scale) * inverse(out), out, relu=relu)


def add_scalar(x: Tensor, x_qparams: QParams, value: float, *, relu: bool = False) -> tuple[Tensor, QParams]:
    """Return codes and parameters of ``x + value``, bit for bit those of ``torch.ops.quantized.add_scalar[_relu]``.

    The constant, rounded to a multiple of the scale, moves the zero point. Where that leaves the codes, the scale grows
    until the zero point is at an end of them, and the codes are requantized.

    Args:
        x: codes.
        x_qparams: per-tensor parameters.
        value: the constant.
        relu: no code below the zero point.
    """
    low, high = stored_range(x_qparams)
    scale, zero_point = x_qparams.scalars()
    moved = zero_point - round(value / scale)
    if low <= moved <= high:
        out = replace(x_qparams, zero_point=moved)
        return saturate(x.double(), out, relu=relu), out
    end = low if moved < low else high
    out = replace(x_qparams, scale=abs((high + low - end) - moved) / (high - low) * scale, zero_point=end)
    multiplier = float32(scale) * inverse(out)
    return requantize(x.double() - moved, multiplier, out, relu=relu), out


def mul_scalar(x: Tensor, x_qparams: QParams, value: float, *, relu: bool = False) -> tuple[Tensor, QParams]:
    """Return codes and parameters of ``x * value``, bit for bit those of ``torch.ops.quantized.mul_scalar[_relu]``.

    Only the scale changes; a negative constant mirrors the codes. Times zero is scale 1, zero point 0, codes 0.

    Args:
        x: codes.
        x_qparams: per-tensor parameters.
        value: the constant.
        relu: no code below the zero point.
    """
    low, high = stored_range(x_qparams)
    scale, zero_point = x_qparams.scalars()
    if value == 0:
        return torch.zeros_like(x), replace(x_qparams, scale=1.0, zero_point=0)
    if value > 0:
        out, codes = replace(x_qparams, scale=scale * value), x.double()
    else:
        out = replace(x_qparams, scale=scale * -value, zero_point=high + low - zero_point)
        codes = high + low - x.double()
    return saturate(codes, out, relu=relu), out


def cat(
    tensors: Sequence[Tensor],
    qparams: Sequence[QParams],
    out: QParams,
    dim: int = 0,
    *,
    relu: bool = False,
) -> Tensor:
    """Return the codes of a concatenation, bit for bit those of ``torch.ops.quantized.cat[_relu]``.

    4d channels-last tensors joined along channels have a loop of their own (which copies codes where scale and zero
    point are the result's); everything else is dequantized and quantized again.

    Args:
        tensors: codes, in the memory format the kernel would see.
        qparams: parameters of each.
        out: parameters of the result.
        dim: where to join, 0 by default.
        relu: no code below the zero point.
    """
    if tensors[0].dim() == 4 and dim in (1, -3) and all(_channels_last(t) for t in tensors):
        parts = [_requantized(t, q, out, relu) for t, q in zip(tensors, qparams, strict=True)]
        return torch.cat(parts, dim)
    joined = torch.cat([dequantize(t, q) for t, q in zip(tensors, qparams, strict=True)], dim)
    return quantize(joined.relu() if relu else joined, out, saturate_storage=True)


def _channels_last(t: Tensor) -> bool:
    return t.is_contiguous(memory_format=torch.channels_last)


def _requantized(codes: Tensor, qparams: QParams, out: QParams, relu: bool) -> Tensor:
    if qparams.scalars() == out.scalars():
        return saturate(codes.double(), out, relu=relu)
    values = to_float(codes, qparams, "vector")
    return to_codes(values.relu() if relu else values, inverse_of_double(out), out, "split")
