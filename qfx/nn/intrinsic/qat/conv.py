"""Convolutions with what follows them, for quantization-aware training.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn import intrinsic as nni
from qfx.nn import qat as nnqat
from qfx.nn.intrinsic.qat.batch_norm import WithBatchNorm


class _ConvBn(WithBatchNorm):
    """Constructor and product of the convolutions with a batch norm; the float class comes next in the order of
    inheritance."""

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
        bias: bool | None = None,
        padding_mode: str = "zeros",
        eps: float = 1e-05,
        momentum: float = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bool(bias), padding_mode
        )
        self._own_batch_norm(out_channels, eps, momentum, freeze_bn, qconfig)

    def _product(self, input: Tensor, weight: Tensor) -> Tensor:
        return self._conv_forward(input, weight, None)  # type: ignore[no-any-return]


class ConvBn1d(_ConvBn, nn.Conv1d):
    """Conv1d and a batch norm that will be folded into it."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED, _FLOAT_BN = nni.ConvBn1d, nn.Conv1d, nn.BatchNorm1d


class ConvBn2d(_ConvBn, nn.Conv2d):
    """Conv2d and a batch norm that will be folded into it."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED, _FLOAT_BN = nni.ConvBn2d, nn.Conv2d, nn.BatchNorm2d


class ConvBn3d(_ConvBn, nn.Conv3d):
    """Conv3d and a batch norm that will be folded into it."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED, _FLOAT_BN = nni.ConvBn3d, nn.Conv3d, nn.BatchNorm3d


class ConvBnReLU1d(ConvBn1d):
    """Conv1d, a batch norm that will be folded into it, and ReLU."""

    _FLOAT_MODULE, _FLOAT_FOLDED = nni.ConvBnReLU1d, nni.ConvReLU1d  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        """Compute with the rounded folded weight, normalize, then clamp."""
        return F.relu(self._normalized(input))


class ConvBnReLU2d(ConvBn2d):
    """Conv2d, a batch norm that will be folded into it, and ReLU."""

    _FLOAT_MODULE, _FLOAT_FOLDED = nni.ConvBnReLU2d, nni.ConvReLU2d  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        """Compute with the rounded folded weight, normalize, then clamp."""
        return F.relu(self._normalized(input))


class ConvBnReLU3d(ConvBn3d):
    """Conv3d, a batch norm that will be folded into it, and ReLU."""

    _FLOAT_MODULE, _FLOAT_FOLDED = nni.ConvBnReLU3d, nni.ConvReLU3d  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        """Compute with the rounded folded weight, normalize, then clamp."""
        return F.relu(self._normalized(input))


class _ConvReLU(nnqat.conv._ConvNd):
    """Constructor, forward and float form of the convolutions with a relu."""

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
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, qconfig
        )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve with the rounded weight, then clamp."""
        return F.relu(self._conv_forward(input, self.weight_fake_quant(self.weight), self.bias))

    def to_float(self) -> Any:
        """The float convolution and its relu in a container."""
        folded = self._FLOAT_MODULE(super().to_float(), nn.ReLU())
        folded.train(self.training)
        return folded


class ConvReLU1d(_ConvReLU, nn.Conv1d):
    """Conv1d and ReLU."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED = nni.ConvReLU1d, nn.Conv1d


class ConvReLU2d(_ConvReLU, nn.Conv2d):
    """Conv2d and ReLU."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED = nni.ConvReLU2d, nn.Conv2d


class ConvReLU3d(_ConvReLU, nn.Conv3d):
    """Conv3d and ReLU."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED = nni.ConvReLU3d, nn.Conv3d
