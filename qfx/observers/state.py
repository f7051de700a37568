"""Taking what observers gathered out of a prepared model, and putting it back."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ObservationError

_MARK = "activation_post_process"


def _is_observer(name: str) -> bool:
    return name.rpartition(".")[2].startswith(_MARK)


def _own_keys(mod: nn.Module) -> tuple[dict[str, Any], list[str]]:
    state: dict[str, Any] = mod.state_dict()
    # Scripted observers are found under the names of the original's scripted modules too
    mark = "observer" if isinstance(mod, torch.jit.ScriptModule) else _MARK
    return state, [key for key in state if mark in key or _MARK in key]


def get_observer_state_dict(mod: nn.Module) -> OrderedDict[str, Tensor]:
    """Return the part of a prepared model's state dict that its observers own.

    Args:
        mod: a prepared model, whose observers are named ``activation_post_process...``.

    Example:
        >>> from qfx.observers import MinMaxObserver
        >>> prepared = torch.nn.ModuleDict({"activation_post_process_0": MinMaxObserver()})
        >>> _ = prepared["activation_post_process_0"](torch.ones(1))
        >>> again = torch.nn.ModuleDict({"activation_post_process_0": MinMaxObserver()})
        >>> _ = load_observer_state_dict(again, get_observer_state_dict(prepared))
        >>> again["activation_post_process_0"].max_val
        tensor(1.)
    """
    state, keys = _own_keys(mod)
    found = OrderedDict((key, state[key]) for key in keys)
    found._metadata = getattr(state, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    return found


def load_observer_state_dict(mod: nn.Module, obs_dict: OrderedDict[str, Tensor]) -> None:
    """Put what ``get_observer_state_dict`` returned into a model prepared the same way.

    Raises:
        ObservationError: an observer of ``mod`` has no entry, an entry has no observer, or a shape does not fit.
    """
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    _, own = _own_keys(mod)
    metadata = getattr(obs_dict, "_metadata", {})
    state = dict(obs_dict)  # loading renames the entries of old versions
    for name, module in mod.named_modules():
        if any(key.startswith(name + ".") for key in own) and hasattr(module, "calculate_qparams"):
            prefix = name + "."
            # A state dict without versions is one saved by name only; its entries have today's layout
            local = metadata.get(name, {"version": getattr(module, "_version", None)})
            module._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
    # What a fake-quantize of a weight keeps beside its observer was not saved either
    missing = [key for key in missing if key in own]
    unexpected += [key for key in obs_dict if not any(key.startswith(k.rpartition(".")[0] + ".") for k in own)]
    if missing or unexpected or errors:
        raise ObservationError(
            f"the observers of this model and the saved ones differ: missing {missing}, unexpected {unexpected}, "
            f"not fitting {errors}; prepare the model as it was prepared for saving"
        )
