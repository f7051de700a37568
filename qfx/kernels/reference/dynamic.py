"""Dynamic quantization: parameters chosen from each input, an integer product, floats out."""

from __future__ import annotations

import torch
from torch import Tensor

from qfx.kernels.reference.arithmetic import Engine, check_engine, float32, fma, there_and_back
from qfx.kernels.reference.matmul import centered
from qfx.qparams import QParams, quantize

# No scale is smaller: its inverse would be too coarse. A float32 number.
_SMALL = 6.0999998822808266e-05


def dynamic_qparams(x: Tensor, *, seven_bits: bool = True) -> QParams:
    """Return the parameters that torch's dynamic kernels choose for a float input, bit for bit.

    The range is from the smallest to the largest value with 0 in it; 0 is always a code.

    Args:
        x: float32, not empty.
        seven_bits: codes 0..127 instead of 0..255.

    Returns:
        Parameters with the scale in double precision; engines round it to float32 at different places.

    Example:
        >>> dynamic_qparams(torch.tensor([-1.0, 1.54])).zero_point
        50
    """
    levels = 127 if seven_bits else 255
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / levels
    stored = float32(scale)
    if stored == 0 or torch.isinf(1.0 / stored):
        scale = 0.1
    if scale < _SMALL:
        stretch, scale = _SMALL / scale, _SMALL
        if low == 0:
            high = _SMALL * levels
        elif high == 0:
            low = -_SMALL * levels
        else:
            low, high = low * stretch, high * stretch
    # Of two ways to place 0, the one whose terms are smaller and so rounded less.
    below, above = -low / scale, high / scale
    zero_point = round(below if below < levels + above else levels - above)
    zero_point = min(max(zero_point, 0), levels)
    return QParams(scale, zero_point, dtype=torch.quint8)


def linear_dynamic(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    w_qparams: QParams,
    *,
    seven_bits: bool = True,
    relu: bool = False,
    engine: Engine = "fbgemm",
) -> Tensor:
    """Return what ``torch.ops.quantized.linear[_relu]_dynamic`` computes, bit for bit.

    Args:
        x: float32 ``(..., in_features)``.
        w: codes ``(out_features, in_features)``.
        bias: float32 ``(out_features,)`` or ``None``.
        w_qparams: parameters of the weight, per tensor or per output feature.
        seven_bits: the kernel's ``reduce_range``, which qnnpack ignores: it has 8 bits.
        relu: no value below 0.
        engine: whose roundings to make. fbgemm multiplies the sum by both scales and adds the bias in one rounding;
            qnnpack rounds in between; onednn scales by input and weight in two steps (without AVX512 in one).

    Raises:
        KernelError: ``engine`` is unknown.
    """
    check_engine(engine)
    x_qparams = dynamic_qparams(x, seven_bits=seven_bits and engine != "qnnpack")
    onednn = engine in ("onednn", "onednn_avx2")
    codes = _codes_of_onednn(x, x_qparams) if onednn else quantize(x, x_qparams)
    # float64 adds integers below 2**53 exactly, in any order
    sums = float32(centered(codes, x_qparams) @ centered(w, w_qparams, 0).T)
    w_scale, x_scale = float32(w_qparams.scale).reshape(-1), float32(x_qparams.scale)
    if onednn:
        # One scale travels in double precision, many in float32.
        w_scale = 1.0 / (1.0 / w_scale) if w_qparams.is_per_channel else there_and_back(w_qparams.scale)
        x_scale = there_and_back(x_qparams.scale)
        scaled = sums * x_scale * w_scale if engine == "onednn" else sums * (x_scale * w_scale)
        values = scaled if bias is None else scaled + bias
    elif engine == "qnnpack" or bias is None:
        values = sums * (x_scale * w_scale) + (0.0 if bias is None else bias)
    else:
        values = fma(sums, x_scale * w_scale, bias)
    return values.clamp_min(0.0) if relu else values


def _codes_of_onednn(x: Tensor, qparams: QParams) -> Tensor:
    """Codes of an input: the product with the inverse scale and the sum with the zero point are rounded one by one."""
    scale, zero_point = qparams.scalars()
    inverse = float32(1.0 / torch.tensor(scale, dtype=torch.float64))
    return torch.round(x * inverse + float(zero_point)).clamp(0, 255)
