"""Replace modules by their quantized (or trained) forms."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.eager.hooks import carry_hooks
from qfx.eager.places import at, is_fused, only_device
from qfx.utilities import get_qparam_dict


def swap_module(
    mod: Any,
    mapping: Mapping[Any, Any],
    custom_module_class_mapping: Mapping[Any, Any] | None,
    use_precomputed_fake_quant: bool = False,
) -> Any:
    """Return the module that replaces ``mod``: itself where it has no ``qconfig``, or its class no replacement.

    The user's hooks follow; the result is on the device of ``mod``.

    Args:
        mod: a module, observed unless the mapping leads to training or to weights only. It is not changed.
        mapping: class to a class with ``from_float``.
        custom_module_class_mapping: observed class to a class with ``from_observed``; asked first.
        use_precomputed_fake_quant: take the range a weight's observer has, instead of looking at the weight again.

    Raises:
        ModuleStateError: ``mod`` is on several devices.
        QfxError: what the replacing class says.

    Example:
        >>> from qfx.config import default_dynamic_qconfig
        >>> from qfx.eager.mappings import get_default_dynamic_quant_module_mappings
        >>> layer = nn.Linear(4, 2)
        >>> layer.qconfig = default_dynamic_qconfig
        >>> type(swap_module(layer, get_default_dynamic_quant_module_mappings(), {})).__name__
        'Linear'
    """
    kind = type_before_parametrizations(mod)
    custom = (custom_module_class_mapping or {}).get(kind)
    target: Any = mapping.get(kind)
    if getattr(mod, "qconfig", None) is None or (custom is None and target is None):
        return mod
    if custom is not None:
        made = custom.from_observed(mod)
    elif getattr(target, "_IS_REFERENCE", False):
        made = target.from_float(mod, _weight_qparams(mod))
    elif "use_precomputed_fake_quant" in inspect.signature(target.from_float).parameters:
        made = target.from_float(mod, use_precomputed_fake_quant=use_precomputed_fake_quant)
    else:
        made = target.from_float(mod)
    carry_hooks(mod, made)
    device = only_device(mod, "swap_module")
    if device is not None and device.type != "cpu":
        made.to(device)
    return made


def _weight_qparams(mod: Any) -> dict[str, Any]:
    """How a reference module's weight is quantized; by name where it has several, as recurrent ones do."""

    def observed(weight: Any) -> dict[str, Any]:
        observer = mod.qconfig.weight()
        observer(weight.detach())
        return get_qparam_dict(observer)

    if hasattr(mod, "weight"):
        return observed(mod.weight)
    named = mod.named_parameters(recurse=False)
    return {name: observed(weight) for name, weight in named if name.startswith("weight")}


@dataclass
class Swapping:
    """One walk over a model that replaces what it can, in place.

    Attributes:
        mapping, custom, use_precomputed_fake_quant: as in `swap_module`.
        done: what each module met so far became; a module in two places is replaced by one.
    """

    mapping: Mapping[Any, Any]
    custom: Mapping[Any, Any]
    use_precomputed_fake_quant: bool
    done: dict[nn.Module, nn.Module] = field(default_factory=dict)

    def children(self, module: nn.Module, path: str = "") -> None:
        """Replace what is below ``module``; fused and custom modules as one."""
        for name, child in list(module._modules.items()):
            if child is None:
                continue
            if child not in self.done:
                child_path = f"{path}.{name}" if path else name
                if not is_fused(child) and type_before_parametrizations(child) not in self.custom:
                    self.children(child, child_path)
                with at(child_path, child):
                    self.done[child] = swap_module(child, self.mapping, self.custom, self.use_precomputed_fake_quant)
            module._modules[name] = self.done[child]
