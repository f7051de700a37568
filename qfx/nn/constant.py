"""A number as a quantized tensor, for kernels that take two tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class ExactConstant:
    """A number that a quantized tensor of one element stands for exactly: its scale is the number.

    Quantized tensors are not copied or pickled (torch warns about its own storage then); `pack` makes one anew.
    """

    value: float

    def pack(self) -> torch.Tensor:
        """The tensor, of shape (1,), ``torch.quint8``."""
        code, zero_point = (1, 0) if self.value >= 0 else (0, 1)
        codes = torch.tensor([code if self.value else 0], dtype=torch.uint8)
        made: torch.Tensor = torch._make_per_tensor_quantized_tensor(codes, abs(self.value) or 1.0, zero_point)
        return made
