"""Linear layers with what follows them, for quantization-aware training.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn import intrinsic as nni
from qfx.nn import qat as nnqat
from qfx.nn.intrinsic.qat.batch_norm import WithBatchNorm


class LinearReLU(nnqat.Linear):
    """Linear and ReLU."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED = nni.LinearReLU, nn.Linear  # type: ignore[assignment]

    def __init__(self, in_features: int, out_features: int, bias: bool = True, qconfig: Any = None) -> None:
        super().__init__(in_features, out_features, bias, qconfig)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply by the rounded weight, then clamp."""
        return F.relu(F.linear(input, self.weight_fake_quant(self.weight), self.bias))

    def to_float(self) -> Any:
        """The float layer and its relu in a container."""
        folded = nni.LinearReLU(super().to_float(), nn.ReLU())
        folded.train(self.training)
        return folded


class LinearBn1d(WithBatchNorm, nn.Linear):
    """Linear and a batch norm that will be folded into it."""

    _FLOAT_MODULE, _FLOAT_WEIGHTED, _FLOAT_BN = nni.LinearBn1d, nn.Linear, nn.BatchNorm1d

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        eps: float = 1e-05,
        momentum: float = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._own_batch_norm(out_features, eps, momentum, freeze_bn, qconfig)

    def _product(self, input: Tensor, weight: Tensor) -> Tensor:
        return F.linear(input, weight)
