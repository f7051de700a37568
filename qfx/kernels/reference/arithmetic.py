"""How torch's integer kernels go back from sums to codes, and float32 arithmetic with the roundings they make.

Every engine multiplies the integer sum by a float32 scale and rounds half to even; they differ in where the other
roundings fall, which decides values that lie within one float32 rounding of a tie (about 1 code in 100,000 of random
data). What is written here reproduces each engine bit for bit; it was found by running them on constructed ties.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from qfx import dtypes
from qfx.errors import KernelError
from qfx.kernels.cpu import has_tiles
from qfx.qparams import QParams

Engine = Literal["fbgemm", "onednn", "onednn_avx2", "qnnpack"]
"""The quantized kernel libraries of torch; onednn rounds differently on CPUs without AVX512 (see ``onednn_here``).

``x86`` is not one of them: it dispatches to fbgemm or onednn.
"""

ENGINES: tuple[str, ...] = get_args(Engine)

INT32_MIN = -(2**31)


def onednn_here() -> Engine:
    """Return which of the two onednn roundings this CPU makes (or is held to, by ``ATEN_CPU_CAPABILITY``)."""
    return "onednn" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "onednn_avx2"


def onednn_roundings_here() -> tuple[Engine, ...]:
    """Return the onednn roundings this CPU makes: with AMX it is one or the other, by the sizes of a product."""
    return ("onednn", "onednn_avx2") if has_tiles() and onednn_here() == "onednn" else (onednn_here(),)


def check_engine(engine: str) -> None:
    """Raise KernelError unless ``engine`` is one of ``ENGINES``."""
    if engine not in ENGINES:
        raise KernelError(f"no kernel library is called {engine!r}; use one of {', '.join(ENGINES)}")


def float32(value: float | Tensor) -> Tensor:
    """Return ``value`` as a float32 tensor, rounded once."""
    return torch.as_tensor(value).to(torch.float32)


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return ``a * b + c`` for float32 tensors with one rounding.

    The product is exact in float64; the sum rounds there first, which changes the result only where it lies within
    2**-53 of a float32 tie.
    """
    return (a.double() * b.double() + c.double()).float()


def stored_range(qparams: QParams) -> tuple[int, int]:
    """Return the ends of the stored type: what kernels saturate at, whatever ``quant_min`` and ``quant_max`` say."""
    return dtypes.code_range(qparams.dtype) if qparams.dtype is not None else (0, 255)


def storage(qparams: QParams) -> torch.dtype:
    """Return the plain dtype of codes with these parameters; uint8 where they do not say."""
    return dtypes.storage_dtype(qparams.dtype) if qparams.dtype is not None else torch.uint8


def limits(qparams: QParams, relu: bool, clamp: tuple[int, int] | None) -> tuple[int, int]:
    """Return the ends results are clamped to: the stored type, from the zero point up for relu, within ``clamp``."""
    low, high = stored_range(qparams)
    if clamp is not None:
        low, high = max(low, clamp[0]), min(high, clamp[1])
    return (max(low, qparams.scalars()[1]), high) if relu else (low, high)


def saturate(values: Tensor, qparams: QParams, *, relu: bool = False, clamp: tuple[int, int] | None = None) -> Tensor:
    """Return rounded ``values``, zero point included, as codes: clamped, then stored."""
    low, high = limits(qparams, relu, clamp)
    return values.double().clamp(low, max(low, high)).to(storage(qparams))


def requantize(
    acc: Tensor,
    multiplier: float | Tensor,
    out: QParams,
    *,
    relu: bool = False,
    clamp: tuple[int, int] | None = None,
) -> Tensor:
    """Return ``round(acc * multiplier) + zero_point`` as codes: one float32 product, half to even, saturated.

    A product beyond int32 (an output scale millions of times too small) becomes the smallest int32, as the x86
    instruction has it: the lowest code, on either side.

    Args:
        acc: sums as exact integers (any integer dtype or float64), or float32 where a bias was already added.
        multiplier: float32, a number or a tensor that broadcasts against ``acc``.
        out: parameters of the result; results saturate at the ends of its stored type (0..255 for quint8).
        relu: no code below the zero point.
        clamp: lowest and highest code, inclusive; the default is the stored type's.

    Example:
        >>> requantize(torch.tensor([5, 15, 9999]), 0.1, QParams(1.0, 3, dtype=torch.quint8))
        tensor([  3,   5, 255], dtype=torch.uint8)
    """
    rounded = torch.round(float32(acc) * float32(multiplier)).double()
    rounded = torch.where(rounded.abs() < -INT32_MIN, rounded, float(INT32_MIN))
    return saturate(rounded + out.scalars()[1], out, relu=relu, clamp=clamp)


def requantize_matmul(
    acc: Tensor,
    bias: Tensor | None,
    x: QParams,
    w: QParams,
    out: QParams,
    *,
    engine: Engine,
    kind: Literal["conv", "linear"],
    relu: bool = False,
    clamp: tuple[int, int] | None = None,
) -> Tensor:
    """Return the codes of a convolution or linear layer from its integer sums, channels last.

    Args:
        acc: exact sums ``(..., out_channels)``, zero points already subtracted from codes.
        bias: float32 ``(out_channels,)`` or ``None``.
        x, w, out: parameters of input, weight (per tensor or one per output channel) and output.
        engine: whose roundings to make. fbgemm adds the float bias to the sum before scaling; qnnpack rounds the bias
            to an integer first; onednn scales by input and weight in two steps (without AVX512 in one), adds the bias,
            and adds the zero point before rounding.
        kind: onednn takes reciprocals of weight scales for linear layers only.
        relu, clamp: as ``requantize``.
    """
    check_engine(engine)
    sums = float32(acc)
    w_scale = float32(w.scale).reshape(-1)
    if engine in ("onednn", "onednn_avx2"):
        x_scale = there_and_back(x.scale)
        if kind == "linear":
            w_scale = 1.0 / (1.0 / w_scale)
        scaled = sums * x_scale * w_scale if engine == "onednn" else sums * (x_scale * w_scale)
        scaled = scaled if bias is None else scaled + bias
        codes = torch.round(scaled * (1.0 / there_and_back(out.scale)) + float(out.scalars()[1]))
        return saturate(codes, out, relu=relu, clamp=clamp)
    products = float32(x.scale) * w_scale
    if engine == "qnnpack":
        if bias is not None:
            sums = float32(acc.double() + torch.round(bias * (1.0 / products)).double())
        return requantize(sums, products * (1.0 / float32(out.scale)), out, relu=relu, clamp=clamp)
    if bias is not None:
        sums = sums + bias / products if w.is_per_channel else fma(bias, 1.0 / products, sums)
    return requantize(sums, products / float32(out.scale), out, relu=relu, clamp=clamp)


def there_and_back(scale: float | Tensor) -> Tensor:
    """A scale as oneDNN has it: scales travel there as rounded reciprocals and are inverted again."""
    return 1.0 / float32(1.0 / torch.as_tensor(scale, dtype=torch.float64))
