"""Linear layers for quantization-aware training.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qfx.nn.qat.module import QATModule


class Linear(QATModule, nn.Linear):
    """``nn.Linear`` whose weight is rounded in every forward: its arguments, then ``qconfig``.

    Raises:
        ConfigError: no ``qconfig``.

    Example:
        >>> from qfx.config import get_default_qat_qconfig
        >>> Linear(4, 2, qconfig=get_default_qat_qconfig("x86"))(torch.zeros(1, 4)).shape
        torch.Size([1, 2])
    """

    _FLOAT_MODULE = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._take_qconfig(qconfig, device)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply by the rounded weight."""
        return F.linear(input, self.weight_fake_quant(self.weight), self.bias)
