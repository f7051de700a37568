"""Reference linear layer: the float kernel on a weight that went through its integers.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qfx.nn.quantized.reference.weight import ReferenceQuantizedModule, of_float


class Linear(ReferenceQuantizedModule, nn.Linear):
    """Reference ``nn.Linear``: its arguments, then ``weight_qparams`` (see :class:`ReferenceQuantizedModule`).

    Example:
        >>> qparams = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.1, "zero_point": 0}
        >>> Linear.from_float(nn.Linear(4, 2), qparams)(torch.zeros(1, 4)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        device: Any = None,
        dtype: Any = None,
        weight_qparams: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias_, device, dtype)
        self._init_weight_qparams(weight_qparams, device)

    def _get_name(self) -> str:
        return "QuantizedLinear(Reference)"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply a float input."""
        return F.linear(x, self.get_weight(), self.bias)

    @classmethod
    def from_float(cls, float_linear: Any, weight_qparams: dict[str, Any]) -> Any:
        """Make it from a float layer and the qparams of its weight; parameters are shared, not copied."""
        return of_float(cls, float_linear, weight_qparams)
