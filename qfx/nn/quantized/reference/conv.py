"""Reference convolutions: float kernels on a weight that went through its integers.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn

from qfx.nn.quantized.reference.weight import ReferenceQuantizedModule, of_float


class _ConvNd(ReferenceQuantizedModule):
    """Constructor and ``from_float`` of the plain convolutions; the float class comes next in the order of
    inheritance."""

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
        device: Any = None,
        dtype: Any = None,
        weight_qparams: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._init_weight_qparams(weight_qparams, device)

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}(Reference)"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve a float input, padding as the float module does."""
        return self._conv_forward(x, self.get_weight(), self.bias)  # type: ignore[no-any-return]

    @classmethod
    def from_float(cls, float_conv: Any, weight_qparams: dict[str, Any]) -> Any:
        """Make it from a float convolution and the qparams of its weight; parameters are shared, not copied."""
        return of_float(cls, float_conv, weight_qparams)


class _ConvTransposeNd(ReferenceQuantizedModule):
    """Constructor, forward and ``from_float`` of the transposed convolutions."""

    bias: torch.Tensor | None
    _output_padding: Any
    _DIMS = 0
    _OP: Any = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        weight_qparams: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation,
            padding_mode, device, dtype,
        )  # fmt: skip
        self._bind()
        self._init_weight_qparams(weight_qparams, device)

    def _bind(self) -> None:
        # On the instance, not the class: TorchScript finds operators only there.
        self._op, self._dims = self._OP, self._DIMS

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}(Reference)"

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Convolve a float input; ``output_size`` settles which of the possible sizes the output gets."""
        output_padding = self._output_padding(
            x, output_size, self.stride, self.padding, self.kernel_size, self._dims, self.dilation
        )
        return self._op(  # type: ignore[no-any-return]
            x, self.get_weight(), self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )

    @classmethod
    def from_float(cls, float_conv: Any, weight_qparams: dict[str, Any]) -> Any:
        """Make it from a float transposed convolution and the qparams of its weight; parameters are shared, not
        copied."""
        return of_float(cls, float_conv, weight_qparams)


class Conv1d(_ConvNd, nn.Conv1d):
    """Reference ``nn.Conv1d``: its arguments, then ``weight_qparams`` (see :class:`ReferenceQuantizedModule`)."""


class Conv2d(_ConvNd, nn.Conv2d):
    """Reference ``nn.Conv2d``: its arguments, then ``weight_qparams`` (see :class:`ReferenceQuantizedModule`)."""


class Conv3d(_ConvNd, nn.Conv3d):
    """Reference ``nn.Conv3d``: its arguments, then ``weight_qparams`` (see :class:`ReferenceQuantizedModule`)."""


class ConvTranspose1d(_ConvTransposeNd, nn.ConvTranspose1d):
    """Reference ``nn.ConvTranspose1d``: its arguments, then ``weight_qparams``."""

    _DIMS, _OP = 1, torch.conv_transpose1d


class ConvTranspose2d(_ConvTransposeNd, nn.ConvTranspose2d):
    """Reference ``nn.ConvTranspose2d``: its arguments, then ``weight_qparams``."""

    _DIMS, _OP = 2, torch.conv_transpose2d


class ConvTranspose3d(_ConvTransposeNd, nn.ConvTranspose3d):
    """Reference ``nn.ConvTranspose3d``: its arguments, then ``weight_qparams``."""

    _DIMS, _OP = 3, torch.conv_transpose3d
