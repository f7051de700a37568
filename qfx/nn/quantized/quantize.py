"""The two ends of a quantized region, as modules.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn

from qfx.nn.weights import output_qparams


class Quantize(nn.Module):
    """Quantize a float tensor.

    Args:
        scale, zero_point: of the output.
        dtype: of the output, such as ``torch.quint8``.
        factory_kwargs: device and dtype of the buffers ``scale`` and ``zero_point`` (shape (1,)).

    Example:
        >>> Quantize(0.1, 128, torch.quint8)(torch.tensor([0.0, 1.0])).int_repr()
        tensor([128, 138], dtype=torch.uint8)
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(
        self, scale: float, zero_point: int, dtype: torch.dtype, factory_kwargs: dict[str, Any] | None = None
    ) -> None:
        factory_kwargs = torch.nn.factory_kwargs(factory_kwargs)
        super().__init__()
        self.register_buffer("scale", torch.tensor([scale], **factory_kwargs))
        device = factory_kwargs.get("device")
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.long, device=device))
        self.dtype = dtype

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Round to the nearest code, halves to even, saturating at the ends of ``dtype``."""
        return torch.quantize_per_tensor(X, float(self.scale), int(self.zero_point), self.dtype)

    @staticmethod
    def from_float(mod: Any, use_precomputed_fake_quant: bool = False) -> "Quantize":
        """Make it from a stub whose ``activation_post_process`` has seen the data.

        Raises:
            ModuleTypeError: the stub has no observer.
        """
        scale, zero_point = output_qparams(mod, "Quantize")
        return Quantize(scale, zero_point, mod.activation_post_process.dtype)

    def extra_repr(self) -> str:
        """Qparams and dtype."""
        return f"scale={self.scale}, zero_point={self.zero_point}, dtype={self.dtype}"


class DeQuantize(nn.Module):
    """Turn a quantized tensor into the floats it stands for."""

    def forward(self, Xq: torch.Tensor) -> torch.Tensor:
        """Compute (code - zero point) * scale."""
        return Xq.dequantize()

    @staticmethod
    def from_float(mod: Any, use_precomputed_fake_quant: bool = False) -> "DeQuantize":
        """Replace a stub."""
        return DeQuantize()
