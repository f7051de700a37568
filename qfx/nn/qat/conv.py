"""Convolutions for quantization-aware training, in one, two and three dimensions.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn

from qfx.nn.qat.module import QATModule


class _ConvNd(QATModule):
    """Constructor and forward of the three; the float class comes next in the order of inheritance."""

    bias: torch.Tensor | None
    _conv_forward: Any

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
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._take_qconfig(qconfig, device)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve with the rounded weight."""
        return self._conv_forward(input, self.weight_fake_quant(self.weight), self.bias)  # type: ignore[no-any-return]


class Conv1d(_ConvNd, nn.Conv1d):
    """``nn.Conv1d`` whose weight is rounded in every forward: its arguments, then ``qconfig``."""

    _FLOAT_MODULE = nn.Conv1d


class Conv2d(_ConvNd, nn.Conv2d):
    """``nn.Conv2d`` whose weight is rounded in every forward: its arguments, then ``qconfig``."""

    _FLOAT_MODULE = nn.Conv2d


class Conv3d(_ConvNd, nn.Conv3d):
    """``nn.Conv3d`` whose weight is rounded in every forward: its arguments, then ``qconfig``."""

    _FLOAT_MODULE = nn.Conv3d
