"""Constants as quantized tensors, for kernels that take two tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from qfx.errors import KernelError


@dataclass(frozen=True, slots=True)
class ExactConstant:
    """A number that a quantized tensor without dimensions stands for exactly: its scale is the number.

    Quantized tensors are not copied or pickled (torch warns about its own storage then); `pack` makes one anew.
    """

    value: float

    def pack(self) -> torch.Tensor:
        """The tensor, of shape (), ``torch.quint8``."""
        code, zero_point = (1, 0) if self.value >= 0 else (0, 1)
        codes = torch.tensor(code if self.value else 0, dtype=torch.uint8)
        made: torch.Tensor = torch._make_per_tensor_quantized_tensor(codes, abs(self.value) or 1.0, zero_point)
        return made


@dataclass(frozen=True, eq=False, slots=True)
class QuantizedConstant:
    """A parameter or buffer that is read as an activation, quantized.

    Args:
        codes: a plain integer tensor.
        scale, zero_point: what they stand for.
    """

    codes: torch.Tensor
    scale: float
    zero_point: int

    def pack(self) -> torch.Tensor:
        """The quantized tensor."""
        made: torch.Tensor = torch._make_per_tensor_quantized_tensor(self.codes, self.scale, self.zero_point)
        return made

    def state(self) -> tuple[torch.Tensor, float, int]:
        """What a state dict keeps of it."""
        return self.codes, self.scale, self.zero_point

    def with_state(self, state: Any) -> QuantizedConstant:
        """This constant with the codes and parameters of a state dict.

        Raises:
            KernelError: the shapes differ.
        """
        codes, scale, zero_point = state
        if codes.shape != self.codes.shape:
            shapes = f"{tuple(codes.shape)}, this model {tuple(self.codes.shape)}"
            raise KernelError(f"the state dict has a constant of shape {shapes}; build the model it was saved from")
        return replace(self, codes=codes, scale=scale, zero_point=zero_point)
