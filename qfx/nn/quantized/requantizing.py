"""What modules share whose kernel takes the output's scale and zero point and nothing packed.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch

from qfx.nn.quantized.module import scale_tensor
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


class SavedQParams(Requantizing):
    """A requantizing module whose qparams are numbers, and in its state dict all the same.

    The original's state dicts have none of them; what a state dict lacks, the module keeps as it is.
    """

    _SAVED: tuple[str, str] = ("scale", "zero_point")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        scale, zero_point = self._SAVED
        destination[prefix + scale] = scale_tensor(float(getattr(self, scale)))
        destination[prefix + zero_point] = torch.tensor(int(getattr(self, zero_point)))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name, number in zip(self._SAVED, (float, int), strict=True):
            if prefix + name in state_dict:
                setattr(self, name, number(state_dict.pop(prefix + name)))
        super()._load_from_state_dict(state_dict, prefix, *rest)
