"""The arithmetic of scales: ranges become scales here, floats become codes here, and nowhere else.

``range_to_qparams`` takes plain numbers and flags only, because TorchScript compiles it inside scripted observers (and
does not take schemes as arguments, nor annotations as strings: no ``from __future__ import annotations`` here).

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), for the affine map and the product scale of biases. Results are bit-identical to ``torch.ao.quantization``'s.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qfx import dtypes
from qfx.errors import ConfigError, ObservationError

EPS = torch.finfo(torch.float32).eps
"""The smallest scale chosen by default."""


@dataclass(frozen=True, eq=False)
class QParams:
    """How the floats of one tensor map to integer codes: ``float = (code - zero_point) * scale``.

    Attributes:
        scale: a number, or a tensor with one scale per channel along ``axis``.
        zero_point: the code of 0.0; a number or one per channel (floats for float-qparams schemes).
        axis: the channel dimension, ``None`` for one scale for the whole tensor.
        dtype: the dtype asked for (``torch.quint8`` or a plain dtype), ``None`` if unknown.
        quant_min, quant_max: the codes in use, ``None`` for all codes of ``dtype``.
        qscheme: the scheme the scale was chosen by, if known.

    Example:
        >>> QParams(0.5, 10, dtype=torch.quint8).codes
        (0, 255)
    """

    scale: float | Tensor
    zero_point: int | float | Tensor = 0
    axis: int | None = None
    dtype: torch.dtype | None = None
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None

    @property
    def is_per_channel(self) -> bool:
        """Whether each channel has its own scale."""
        return self.axis is not None

    @property
    def codes(self) -> tuple[int, int]:
        """The smallest and largest code in use.

        Raises:
            ConfigError: neither a range nor an integer dtype is known.
        """
        if self.quant_min is not None and self.quant_max is not None:
            return self.quant_min, self.quant_max
        return dtypes.code_range(self._known_dtype())

    @property
    def storage(self) -> torch.dtype:
        """The plain integer dtype that holds the codes."""
        return dtypes.storage_dtype(self._known_dtype())

    def scalars(self) -> tuple[float, int]:
        """Return scale and zero point as python numbers.

        Raises:
            ConfigError: the parameters are per channel.
        """
        if self.is_per_channel:
            raise ConfigError(f"parameters are per channel (axis {self.axis}); read .scale and .zero_point instead")
        return float(self.scale), int(self.zero_point)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        return self._facts() == other._facts() and all(
            _same(mine, theirs) for mine, theirs in ((self.scale, other.scale), (self.zero_point, other.zero_point))
        )

    def __hash__(self) -> int:
        return hash(self._facts())

    def _facts(self) -> tuple[Any, ...]:
        return self.axis, self.dtype, self.quant_min, self.quant_max, self.qscheme

    def _known_dtype(self) -> torch.dtype:
        if self.dtype is None:
            raise ConfigError("quantization parameters have no dtype; build them as QParams(..., dtype=torch.quint8)")
        return self.dtype


def _same(a: float | Tensor, b: float | Tensor) -> bool:
    left, right = torch.as_tensor(a).reshape(-1), torch.as_tensor(b).reshape(-1)
    return left.shape == right.shape and bool((left == right).all())


def symmetric_zero_point(dtype: torch.dtype, quant_min: int, quant_max: int, customized: bool) -> int:
    """Return the zero point of a symmetric scheme: the middle of the codes, 0 for signed dtypes.

    ``customized`` says the range was asked for rather than taken from the dtype: then the middle of that range is
    rounded down (127 for 0..255), otherwise it is 128, as kernels expect.
    """
    if dtype in (torch.quint8, torch.uint8):
        return (quant_min + quant_max) // 2 if customized else 128
    return 2**15 if dtype == torch.uint16 else 0


def range_to_qparams(
    min_val: Tensor,
    max_val: Tensor,
    eps: Tensor,
    quant_min: int,
    quant_max: int,
    symmetric: bool,
    float_zero_point: bool,
    middle: int,
) -> tuple[Tensor, Tensor]:
    """Turn observed ranges into scales and zero points of shape ``(1,)``, or ``(channels,)`` where the ranges have it.

    The order of operations is part of the contract: it makes the results bit-identical to the original's.
    ``choose_qparams`` is the friendly spelling of this function.
    """
    if bool((min_val > max_val).any()):
        raise ObservationError("an observed minimum is above the maximum; reset the observer and calibrate again")
    low = torch.clamp(min_val, max=0.0)
    high = torch.clamp(max_val, min=0.0)
    if symmetric:
        scale = torch.max(torch.max(-low, high) / (float(quant_max - quant_min) / 2), eps)
        zero_point = torch.full(low.shape, middle, dtype=torch.int64, device=low.device)
    elif float_zero_point:
        scale = (max_val - min_val) / float(quant_max - quant_min)
        scale = torch.where(scale > eps, scale, torch.ones_like(scale))
        zero_point = -1 * min_val / scale
    else:
        scale = torch.max((high - low) / float(quant_max - quant_min), eps)
        zero_point = torch.clamp(quant_min - torch.round(low / scale).to(torch.int32), quant_min, quant_max)
    return torch.atleast_1d(scale), torch.atleast_1d(zero_point)


def choose_qparams(
    min_val: Tensor,
    max_val: Tensor,
    *,
    quant_min: int | None = None,
    quant_max: int | None = None,
    qscheme: torch.qscheme = torch.per_tensor_affine,
    dtype: torch.dtype = torch.quint8,
    reduce_range: bool = False,
    eps: float | Tensor = EPS,
) -> tuple[Tensor, Tensor]:
    """Choose scale and zero point so that ``min_val .. max_val``, widened to include 0, just fits the codes.

    Args:
        min_val: smallest value, shape ``()`` or ``(channels,)``, floating point.
        max_val: largest value, same shape.
        quant_min: smallest code; with ``quant_max`` ``None`` (default) the codes of ``dtype`` are used.
        quant_max: largest code.
        qscheme: affine (default), symmetric, or float-qparams (zero point a float, range not widened).
        dtype: the dtype the codes are meant for (default ``torch.quint8``).
        reduce_range: one bit less, for kernels that add products in 16 bits.
        eps: the smallest scale.

    Returns:
        ``(scale, zero_point)``, each of shape ``(1,)`` or ``(channels,)``.

    Raises:
        ConfigError: the code range does not include 0 or does not fit ``dtype``.
        ObservationError: a minimum is above its maximum.

    Example:
        >>> choose_qparams(torch.tensor(0.0), torch.tensor(25.5))
        (tensor([0.1000]), tensor([0], dtype=torch.int32))
    """
    low, high = dtypes.resolve_code_range(dtype, quant_min, quant_max, reduce_range)
    customized = quant_min is not None and quant_max is not None
    least = eps if isinstance(eps, Tensor) else torch.tensor([eps], device=min_val.device)
    return range_to_qparams(
        min_val,
        max_val,
        least,
        low,
        high,
        dtypes.is_symmetric(qscheme),
        dtypes.has_float_zero_point(qscheme),
        symmetric_zero_point(dtype, low, high, customized),
    )


def quantize(t: Tensor, qparams: QParams, *, saturate_storage: bool = False) -> Tensor:
    """Return the integer codes of ``t`` as a tensor of the plain storage dtype; rounds half to even.

    Bit-identical to ``torch.quantize_per_tensor`` / ``quantize_per_channel`` on CPUs with fused multiply-add: per
    tensor the product with the inverse scale and the sum with the zero point are rounded once, per channel twice. NaN
    becomes the smallest code (torch leaves it undefined).

    Args:
        t: floats of any shape.
        qparams: scale, zero point, axis and dtype.
        saturate_storage: clamp to the codes of the dtype, as torch's kernels do, not to ``quant_min .. quant_max``.

    Raises:
        ConfigError: ``qparams`` has no integer dtype.
    """
    low, high = dtypes.code_range(qparams._known_dtype()) if saturate_storage else qparams.codes
    scale, zero_point = _broadcast(qparams, t.dim(), t.device)
    inverse = 1.0 / scale
    values = t.detach().to(torch.float32)
    if qparams.is_per_channel:
        codes = torch.round(values * inverse + zero_point)
    else:
        # The product of two float32 is exact in float64, so only the conversion back rounds: a fused multiply-add.
        codes = torch.round((values.double() * inverse.double() + zero_point.double()).float())
    # float64: the ends of int32 are not float32 numbers
    return codes.double().nan_to_num(nan=low).clamp_(low, high).to(torch.int64).to(qparams.storage)


def dequantize(codes: Tensor, qparams: QParams) -> Tensor:
    """Return the float32 values of integer codes, ``(code - zero_point) * scale``, as ``Tensor.dequantize`` does.

    Args:
        codes: a plain integer tensor of any shape.
        qparams: scale, zero point and axis.
    """
    scale, zero_point = _broadcast(qparams, codes.dim(), codes.device)
    # The difference is exact for any code and zero point; float64 keeps int32 codes whole until here.
    return (codes.double() - zero_point.double()).float() * scale


def _broadcast(qparams: QParams, dims: int, device: torch.device) -> tuple[Tensor, Tensor]:
    scale = torch.as_tensor(qparams.scale, device=device).to(torch.float32).reshape(-1)
    zero_point = torch.as_tensor(qparams.zero_point, device=device).to(torch.float32).reshape(-1)
    if qparams.axis is None:
        return scale.reshape(()), zero_point.reshape(())
    shape = [1] * dims
    shape[qparams.axis] = -1
    return scale.reshape(shape), zero_point.reshape(shape)


def product_scale(activation: QParams, weight: QParams) -> QParams:
    """Return the parameters of an int32 bias: the scale of a sum of activation times weight products, zero point 0.

    Per channel along dimension 0 (a bias has no other) where the weight is per channel.

    Raises:
        ConfigError: the activation is per channel; its products then have no common scale.

    Example:
        >>> product_scale(QParams(0.5), QParams(0.25)).scale
        0.125
    """
    if activation.is_per_channel:
        raise ConfigError("a bias scale needs per-tensor activation parameters; got one scale per channel")
    act = float(activation.scale)
    if weight.is_per_channel:
        scale: float | Tensor = torch.as_tensor(weight.scale).to(torch.float64) * act
    else:
        scale = act * float(weight.scale)
    channels = 0 if weight.is_per_channel else None
    zero_point = torch.zeros_like(scale, dtype=torch.int64) if isinstance(scale, Tensor) else 0
    scheme = torch.per_channel_symmetric if weight.is_per_channel else torch.per_tensor_symmetric
    return QParams(scale, zero_point, axis=channels, dtype=torch.int32, qscheme=scheme)


def with_codes(
    qparams: QParams, dtype: torch.dtype, quant_min: int | None = None, quant_max: int | None = None
) -> QParams:
    """Return ``qparams`` restated for another dtype or code range, same scale and zero point.

    Raises:
        ConfigError: the range does not fit ``dtype``.
    """
    low, high = dtypes.resolve_code_range(dtype, quant_min, quant_max)
    return replace(qparams, dtype=dtype, quant_min=low, quant_max=high)
