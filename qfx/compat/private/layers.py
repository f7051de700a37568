"""Small helpers of the layer families (``nn.quantized.modules.utils`` and beside)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qfx.nn.intrinsic.qat.batch_norm import WithBatchNorm
from qfx.nn.qat.module import QATModule
from qfx.nn.weights import clamp_codes, quantize_weight

_SUPPORTED_PADDING = {"zeros", "reflect"}
_ConvBnNd = WithBatchNorm
_BN_CLASS_MAP = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class _ConvNd(QATModule, nn.modules.conv._ConvNd):
    """A convolution that trains with rounded weights, of any kind: the base of such classes elsewhere.

    Args are those of torch's own base of convolutions, all of them, then ``qconfig``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: Any,
        dilation: tuple[int, ...],
        transposed: bool,
        output_padding: tuple[int, ...],
        groups: int,
        bias: bool,
        padding_mode: Any,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        nn.modules.conv._ConvNd.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            transposed,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._take_qconfig(qconfig, device)


def _quantize_weight(float_wt: Tensor, observer: Any) -> Tensor:
    """A weight as a quantized tensor, by the parameters of an observer that saw it."""
    return quantize_weight(float_wt, observer)


def _get_weight_observer(observer: Any) -> Any:
    """The observer in a fake-quantize; an observer itself."""
    return getattr(observer, "activation_post_process", observer)


def _needs_weight_clamping(observer: Any, dtype: torch.dtype) -> bool:
    """Whether an observer's codes are not all of a dtype's, which quantizing alone would use."""
    inner, limits = _get_weight_observer(observer), torch.iinfo(dtype)
    return bool(inner.quant_min > limits.min or inner.quant_max < limits.max)


def _clamp_weights(qweight: Tensor, observer: Any, scale: Any, zp: Any) -> Tensor:
    """A quantized weight with its codes inside those of an observer, which are not all of them.

    Args:
        qweight: quantized per tensor or per channel.
        observer: it, or a fake-quantize with it.
        scale, zp: the weight knows them; accepted for the original's sake.
    """
    inner = _get_weight_observer(observer)
    return clamp_codes(qweight, inner.quant_min, inner.quant_max)


def _ntuple_from_first(n: int) -> Callable[[Any], tuple[Any, ...]]:
    """A function of a number or a sequence: `n` times the number, or the sequence's first item."""

    def parse(x: Any) -> tuple[Any, ...]:
        while isinstance(x, list | tuple) and len(x) > 1:
            x = x[0]
        first = x[0] if isinstance(x, list | tuple) else x
        return (first,) * n

    return parse


_pair_from_first = _ntuple_from_first(2)


def _hide_packed_params_repr(self: nn.Module, params: type) -> str:
    """The representation of a module without its packed weight."""
    lines = [
        f"({name}): " + repr(child).replace("\n", "\n  ")
        for name, child in self._modules.items()
        if not isinstance(child, params)
    ]
    extra = self.extra_repr()
    inside = ([extra] if extra and not lines else extra.split("\n") if extra else []) + lines
    body = extra if extra and not lines else "\n  " + "\n  ".join(inside) + "\n" if inside else ""
    return f"{self._get_name()}({body})"


def _reverse_repeat_padding(padding: list[int] | tuple[int, ...]) -> list[int]:
    """Padding per dimension as ``F.pad`` takes it: last dimension first, each twice."""
    return [each for each in reversed(padding) for _ in range(2)]


def _apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """The tensor with `dim` in the order of a permutation."""
    return tensor.index_select(dim, permutation)
