"""Dynamically quantized layers whose kernel also clamps at zero.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

import torch

from qfx.nn import intrinsic as nni
from qfx.nn.quantized import dynamic as nnqd

__all__ = ["LinearReLU"]

_ops = torch.ops.quantized


class LinearReLU(nnqd.Linear):
    """Dynamically quantized Linear and ReLU in one kernel; see :class:`qfx.nn.quantized.dynamic.Linear`."""

    _FLOAT_MODULE = nni.LinearReLU
    _OP = _ops.linear_relu_dynamic
    _HALF_OP = _ops.linear_relu_dynamic_fp16

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
