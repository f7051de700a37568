"""What modules keep in state dicts beside parameters and buffers: packed weights as plain values, numbers.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(slots=True)
class Loading:
    """The part of a state dict that a module is about to take.

    Attributes:
        state_dict: all of it; what is taken is removed.
        prefix: of the module's keys.
        missing: keys that were not there.
        errors: what does not fit, for ``load_state_dict`` to report.
    """

    state_dict: dict[str, Any]
    prefix: str
    missing: list[str]
    errors: list[str]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.state_dict

    def take(self, name: str, default: Any) -> Any:
        """Remove and return an entry; where there is none, note it as missing and return what the module has."""
        key = self.prefix + name
        if key in self.state_dict:
            return self.state_dict.pop(key)
        self.missing.append(key)
        return default

    def fits(self, name: str, new: torch.Tensor, shape: torch.Size) -> bool:
        """Whether a loaded weight has the module's shape; notes the mismatch if not."""
        if new.shape != shape:
            key = self.prefix + name
            self.errors.append(f"size mismatch for {key}: the state has {tuple(new.shape)}, this module {tuple(shape)}")
            return False
        return True


class Saved(torch.nn.Module):
    """Mixin: a module that takes entries of its own from a state dict, in ``_take_saved``.

    It stands behind classes that annotate their attributes: TorchScript reads the annotations of the first that has
    any.
    """

    # The version of the layout that first had these entries: in an older one none is missing
    _SAVED_SINCE = 1

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
        known = (local_metadata.get("version") or 1) >= self._SAVED_SINCE
        self._take_saved(Loading(state_dict, prefix, missing_keys if known else [], error_msgs))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _take_saved(self, loading: Loading) -> None:
        """Take what belongs to this class."""


class SavedScale(Saved):
    """Mixin: a module whose scale and zero point are numbers, and in its state dict all the same."""

    _SAVED: tuple[str, str] = ("scale", "zero_point")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        scale, zero_point = self._SAVED
        destination[prefix + scale] = scale_tensor(float(getattr(self, scale)))
        destination[prefix + zero_point] = torch.tensor(int(getattr(self, zero_point)))

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        for name, number in zip(self._SAVED, (float, int), strict=True):
            setattr(self, name, number(loading.take(name, getattr(self, name))))


def scale_tensor(scale: float) -> torch.Tensor:
    """A scale for a state dict: float32 as ever, float64 for one that float32 would round (observers give float32)."""
    single = torch.tensor(scale, dtype=torch.float)
    return single if single.item() == scale else torch.tensor(scale, dtype=torch.double)
