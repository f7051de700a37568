"""Quantized dropout: nothing, in both modes, so that a model keeps its module names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.nn.quantized.requantizing import Requantizing


class Dropout(Requantizing, nn.Dropout):
    """Returns its input; takes the arguments of ``nn.Dropout``."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the input itself."""
        return input

    def _get_name(self) -> str:
        return "QuantizedDropout"

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Dropout:
        """Take over ``p`` and ``inplace``; needs no observer."""
        return cls(mod.p, mod.inplace)

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> Dropout:
        return cls(module.p, module.inplace)
