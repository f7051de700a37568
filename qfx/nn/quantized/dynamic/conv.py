"""Dynamically quantized convolutions, plain and transposed, in one, two and three dimensions.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F

from qfx.frames import warn
from qfx.nn import quantized as nnq
from qfx.nn.quantized.conv import _ConvBase
from qfx.nn.quantized.module import check_rank

_ops = torch.ops.quantized


class _Dynamic(_ConvBase):
    """Mixin before a static convolution: the same weight, floats in and out.

    torch's kernels store the result in codes with the scale and zero point of the input: what lies outside the range
    of the input (twice that above zero point, with 7 bits) is clipped. The classes are here because their names are;
    every new one warns.
    """

    def _init(self, *arguments: Any) -> None:
        warn(
            f"The current implementation of the {self._get_name()} module has poor numerical accuracy and its use is "
            "not recommended: results are stored in the scale and range of the input. Quantize it statically or leave "
            "it float",
        )
        super()._init(*arguments)

    def _get_name(self) -> str:
        return f"DynamicQuantized{type(self).__name__}"

    def forward(self, input: torch.Tensor, reduce_range: bool = True) -> torch.Tensor:
        """Convolve a float input, quantized here to 7 bits, or to 8 without ``reduce_range`` and with qnnpack."""
        check_rank(input, self._rank, self._layout)
        if self.padding_mode != "zeros":
            input = F.pad(input, self._side_padding, mode=self.padding_mode)
        # qnnpack has 8 bits whatever it is told, and warns if it is told otherwise.
        return self._op(  # type: ignore[no-any-return]
            input, self._packed_params, reduce_range and self.engine != "qnnpack"
        )


class Conv1d(_Dynamic, nnq.Conv1d):
    """Dynamically quantized ``nn.Conv1d``: (N, C, L) of float32 in and out, the result in the input's range.

    The constructor is that of ``nn.Conv1d`` (``dtype`` and ``reduce_range`` are accepted and without effect) with the
    keyword ``engine``; a new module has zero weights.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     m = Conv1d(4, 8, 3, padding=1)
        >>> m(torch.zeros(1, 4, 6)).shape
        torch.Size([1, 8, 6])
    """

    _OP = _ops.conv1d_dynamic

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        reduce_range: bool = True,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device,
            dtype, engine=engine,
        )  # fmt: skip


class Conv2d(_Dynamic, nnq.Conv2d):
    """Dynamically quantized ``nn.Conv2d``: (N, C, H, W) of float32 in and out; see :class:`Conv1d`."""

    _OP = _ops.conv2d_dynamic


class Conv3d(_Dynamic, nnq.Conv3d):
    """Dynamically quantized ``nn.Conv3d``: (N, C, D, H, W) of float32 in and out; see :class:`Conv1d`."""

    _OP = _ops.conv3d_dynamic


class ConvTranspose1d(_Dynamic, nnq.ConvTranspose1d):
    """Dynamically quantized ``nn.ConvTranspose1d``; see :class:`Conv1d`."""

    _OP = _ops.conv_transpose1d_dynamic


class ConvTranspose2d(_Dynamic, nnq.ConvTranspose2d):
    """Dynamically quantized ``nn.ConvTranspose2d``; see :class:`Conv1d`."""

    _OP = _ops.conv_transpose2d_dynamic


class ConvTranspose3d(_Dynamic, nnq.ConvTranspose3d):
    """Dynamically quantized ``nn.ConvTranspose3d``; see :class:`Conv1d`. Not with qnnpack, whose kernel computes it
    wrong."""

    _OP = _ops.conv_transpose3d_dynamic
