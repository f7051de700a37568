"""Give observers to the modules that are to be quantized."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.config.qconfig_checks import activation_is_memoryless
from qfx.eager.hooks import carry_hooks, register_observer_hook, remove_observer_hooks
from qfx.eager.mappings import get_default_qconfig_propagation_list, has_known_range, known_range, no_observer_set
from qfx.eager.places import at, is_fused, only_device
from qfx.fake_quantize.recognize import is_activation_post_process
from qfx.nn.quantized import FloatFunctional, QFunctional
from qfx.nn.stubs import DeQuantStub
from qfx.utilities import has_no_children_ignoring_parametrizations


@dataclass
class _Walk:
    """One walk over a model.

    Attributes:
        leaves: classes that are observed where they have no children.
        wholes: classes that are observed as one, children and all.
        custom: class to the class that observes itself.
        device: where observers go.
        done: what each module met so far became, itself or a custom one; a module in two places is observed once.
    """

    leaves: Collection[Any]
    wholes: Collection[Any]
    custom: Mapping[Any, Any]
    device: torch.device | None
    done: dict[nn.Module, nn.Module] = field(default_factory=dict)

    def children(self, module: nn.Module, path: str) -> None:
        for name, child in module._modules.items():
            if child is None:
                continue
            if child not in self.done:
                child_path = f"{path}.{name}" if path else name
                self.done[child] = child
                with at(child_path, child):
                    self.done[child] = self.child(child, child_path)
            module._modules[name] = self.done[child]
        if self._is_leaf(module):
            self.observe(module)

    def child(self, child: Any, path: str) -> Any:
        kind: Any = type_before_parametrizations(child)
        if kind is nn.Dropout:
            return child
        if issubclass(kind, (FloatFunctional, QFunctional)):
            if _wanted(child):
                child.activation_post_process = self._made(child.qconfig.activation)
        elif is_fused(child) or kind in self.wholes:
            self.observe(child)
        elif has_known_range(child):
            self.observe(child, known_range(child))
        elif _wanted(child) and kind in self.custom:
            return self._observing_itself(child, self.custom[kind])
        else:
            self.children(child, path)
        return child

    def _observing_itself(self, module: nn.Module, observed_class: Any) -> nn.Module:
        observed: nn.Module = observed_class.from_float(module)
        carry_hooks(module, observed)
        if not issubclass(observed_class, tuple(no_observer_set())):
            self.observe(observed)
        return observed

    def _is_leaf(self, module: nn.Module) -> bool:
        if isinstance(module, nn.Sequential) or type_before_parametrizations(module) not in self.leaves:
            return False
        # A weight that is rounded while it is learned is a child, but no part of the computation to look into.
        return has_no_children_ignoring_parametrizations(module) or hasattr(module, "weight_fake_quant")

    def observe(self, module: Any, factory: Any = None) -> None:
        """Add the observer and its hook, unless the module stays float or only dequantizes."""
        if not _wanted(module) or isinstance(module, DeQuantStub):
            return
        module.add_module("activation_post_process", self._made(factory or module.qconfig.activation))
        register_observer_hook(module, pre_hook=activation_is_memoryless(module.qconfig))

    def _made(self, factory: Any) -> Any:
        made = factory()
        return made if self.device is None else made.to(self.device)


def _wanted(module: nn.Module) -> bool:
    qconfig: Any = getattr(module, "qconfig", None)
    return qconfig is not None and qconfig.activation is not None


def add_observers_(
    module: nn.Module,
    qconfig_propagation_list: Collection[Any] | None = None,
    non_leaf_module_list: Collection[Any] | None = None,
    device: torch.device | None = None,
    custom_module_class_mapping: Mapping[Any, Any] | None = None,
) -> None:
    """Add observers to a model whose modules have a ``qconfig``, in place.

    Args:
        module: the model.
        qconfig_propagation_list: classes that are observed where they have no children. By default all that have a
            quantized form.
        non_leaf_module_list: classes that are observed although they have children. None by default.
        device: where observers go. By default where the model is.
        custom_module_class_mapping: class to the class whose ``from_float`` makes the observed module. None by
            default.

    Raises:
        ModuleStateError: the model is on several devices.
    """
    leaves = get_default_qconfig_propagation_list() if qconfig_propagation_list is None else qconfig_propagation_list
    if device is None:
        device = only_device(module, "prepare")
    walk = _Walk(leaves, non_leaf_module_list or (), custom_module_class_mapping or {}, device)
    walk.children(module, "")


def remove_observer(module: nn.Module) -> None:
    """Take the observer and its hook off one module."""
    observer = getattr(module, "activation_post_process", None)
    if isinstance(observer, nn.Module) and is_activation_post_process(observer):
        del module.activation_post_process
    remove_observer_hooks(module)


def remove_qconfig(module: nn.Module) -> None:
    """Take configurations, observers and their hooks off all modules of a model, so that it can be prepared anew."""
    for part in list(module.modules()):
        part.__dict__.pop("qconfig", None)
        remove_observer(part)


def observers_by_name(mod: nn.Module, target_dict: dict[str, Any], prefix: str = "") -> None:
    """Enter every observer of a model into ``target_dict``, by its path below ``prefix``."""
    for path, part in mod.named_modules(prefix=prefix):
        if hasattr(part, "activation_post_process"):
            target_dict[f"{path}.activation_post_process" if path else "activation_post_process"] = (
                part.activation_post_process
            )
