"""Quantized layers whose kernel also does what follows: a clamp at zero, an addition, an activation.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch._jit_internal import is_scripting

from qfx.kernels.packing import packed_by
from qfx.nn import intrinsic as nni
from qfx.nn import quantized as nnq
from qfx.nn.quantized.module import check_rank

__all__ = [
    "BNReLU2d",
    "BNReLU3d",
    "ConvAdd2d",
    "ConvAddReLU2d",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "LinearLeakyReLU",
    "LinearReLU",
    "LinearTanh",
]

_ops = torch.ops.quantized


class ConvReLU1d(nnq.Conv1d):
    """Quantized Conv1d and ReLU in one kernel; see :class:`qfx.nn.quantized.Conv1d`."""

    _FLOAT_MODULE = nni.ConvReLU1d  # type: ignore[assignment]
    _OP = _ops.conv1d_relu


class ConvReLU2d(nnq.Conv2d):
    """Quantized Conv2d and ReLU in one kernel; see :class:`qfx.nn.quantized.Conv2d`."""

    _FLOAT_MODULE = nni.ConvReLU2d  # type: ignore[assignment]
    _OP = _ops.conv2d_relu


class ConvReLU3d(nnq.Conv3d):
    """Quantized Conv3d and ReLU in one kernel; see :class:`qfx.nn.quantized.Conv3d`."""

    _FLOAT_MODULE = nni.ConvReLU3d  # type: ignore[assignment]
    _OP = _ops.conv3d_relu


class BNReLU2d(nnq.BatchNorm2d):
    """Quantized BatchNorm2d and ReLU in one kernel; see :class:`qfx.nn.quantized.BatchNorm2d`."""

    _OP = _ops.batch_norm2d_relu


class BNReLU3d(nnq.BatchNorm3d):
    """Quantized BatchNorm3d and ReLU in one kernel; see :class:`qfx.nn.quantized.BatchNorm3d`."""

    _OP = _ops.batch_norm3d_relu


class LinearReLU(nnq.Linear):
    """Quantized Linear and ReLU in one kernel; see :class:`qfx.nn.quantized.Linear`."""

    _FLOAT_MODULE = nni.LinearReLU
    _OP = _ops.linear_relu

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype, engine=engine)


class ConvAdd2d(nnq.Conv2d):
    """Quantized Conv2d and the addition of a second quantized tensor in one kernel, which onednn alone has.

    ``engine=None`` therefore means onednn. The operator asks which engine is selected even when it runs: the module
    selects its own for the call, a script or a graph traced through it runs while torch has onednn selected.
    """

    _FLOAT_MODULE = nni.ConvAdd2d  # type: ignore[assignment]
    _OP = _ops.conv2d_add

    def _choose_engine(self, engine: str | None) -> None:
        super()._choose_engine(engine or "onednn")

    def _compute(self, input: torch.Tensor, extra_input: torch.Tensor) -> torch.Tensor:
        return self._op(input, extra_input, self._packed_params, self.scale, self.zero_point)  # type: ignore[no-any-return]

    def forward(self, input: torch.Tensor, extra_input: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Convolve ``input`` and add ``extra_input``, both ``torch.quint8``."""
        check_rank(input, self._rank, self._layout)
        if self.padding_mode != "zeros":
            input = F.pad(input, self._side_padding, mode=self.padding_mode)
        if is_scripting():
            return self._compute(input, extra_input)
        else:
            with packed_by(self.engine):
                return self._compute(input, extra_input)


class ConvAddReLU2d(ConvAdd2d):
    """Quantized Conv2d, the addition of a second quantized tensor and a ReLU; see :class:`ConvAdd2d`."""

    _FLOAT_MODULE = nni.ConvAddReLU2d  # type: ignore[assignment]
    _OP = _ops.conv2d_add_relu


class _OneDnnLinear(nnq.Linear):
    """A linear layer whose operator exists for onednn alone, and asks which engine is selected even when it runs."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype, engine=engine or "onednn")

    def _compute(self, x: torch.Tensor) -> torch.Tensor:
        return self._op(x, self._packed_params._packed_params, self.scale, self.zero_point)  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply a ``torch.quint8`` input; a script of this module runs while onednn is the engine selected in
        torch."""
        if is_scripting():
            return self._compute(x)
        else:
            with packed_by(self._packed_params.engine):
                return self._compute(x)


class LinearTanh(_OneDnnLinear):
    """Quantized Linear and Tanh in one kernel, which onednn alone has; ``engine=None`` therefore means onednn."""

    _FLOAT_MODULE = nni.LinearTanh
    _OP = _ops.linear_tanh


class LinearLeakyReLU(_OneDnnLinear):
    """Quantized Linear and LeakyReLU in one kernel, which onednn alone has; ``engine=None`` therefore means onednn.

    Args:
        in_features, out_features: sizes.
        negative_slope: of the LeakyReLU.
        bias: whether there is a (float) bias.
        dtype: of the weight, ``torch.qint8``.
        engine: who packs.
    """

    _FLOAT_MODULE = nni.LinearLeakyReLU
    _OP = _ops.linear_leaky_relu

    def __init__(
        self,
        in_features: int,
        out_features: int,
        negative_slope: float,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype, engine=engine)
        self.negative_slope = negative_slope

    def _compute(self, x: torch.Tensor) -> torch.Tensor:
        return self._op(  # type: ignore[no-any-return]
            x, self._packed_params._packed_params, self.scale, self.zero_point, self.negative_slope
        )

    @classmethod
    def _like(cls, linear: Any, container: Any, engine: str | None) -> Any:
        slope = container[1].negative_slope
        return cls(linear.in_features, linear.out_features, slope, linear.bias is not None, engine=engine)
