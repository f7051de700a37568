"""What modules share whose kernel takes the output's scale and zero point and nothing packed.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch

from qfx.nn.quantized.module import scale_tensor, take
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

    The original's state dicts (version 1) have none of them, and leave the module as it is. In one of ours a missing
    number is a missing key.
    """

    _version = 2
    _SAVED: tuple[str, str] = ("scale", "zero_point")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        scale, zero_point = self._SAVED
        destination[prefix + scale] = scale_tensor(float(getattr(self, scale)))
        destination[prefix + zero_point] = torch.tensor(int(getattr(self, zero_point)))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        noted: list[str] = [] if local_metadata.get("version", 1) < 2 else missing_keys
        self._take_saved(state_dict, prefix, noted, error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _take_saved(
        self, state_dict: dict[str, Any], prefix: str, missing_keys: list[str], error_msgs: list[str]
    ) -> None:
        for name, number in zip(self._SAVED, (float, int), strict=True):
            setattr(self, name, number(take(state_dict, prefix + name, missing_keys, getattr(self, name))))
