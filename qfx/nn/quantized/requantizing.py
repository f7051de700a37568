"""What modules share whose kernel takes the output's scale and zero point and nothing packed.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch

from qfx.nn.quantized.saved import SavedScale
from qfx.nn.weights import output_qparams


class Requantizing(torch.nn.Module):
    """Mixin for activations and norms: both ways to make one go through ``_build``."""

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> Any:
        """The quantized form of a float module, given the qparams of its output."""
        raise NotImplementedError

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize an observed float module: its output range is what ``activation_post_process`` saw.

        Raises:
            ModuleTypeError: the module has no observer.
        """
        return cls._build(mod, *output_qparams(mod, cls.__name__))

    @classmethod
    def from_reference(cls, mod: Any, scale: Any, zero_point: Any) -> Any:
        """Make the quantized module from a float one and the output's qparams (numbers or tensors of one element)."""
        return cls._build(mod, float(scale), int(zero_point))


class BufferedQParams(Requantizing):
    """A requantizing module that keeps its qparams as buffers, and so in its state dict."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def _register_qparams(self, scale: float, zero_point: int, device: Any = None, dtype: Any = None) -> None:
        self.register_buffer("scale", torch.tensor(scale, device=device, dtype=dtype))
        self.register_buffer("zero_point", torch.tensor(zero_point, device=device))


class SavedQParams(SavedScale, Requantizing):
    """A requantizing module whose qparams are numbers.

    The original's state dicts (version 1) have none of them, and leave the module as it is. In one of ours a missing
    number is a missing key.
    """

    _version = _SAVED_SINCE = 2
