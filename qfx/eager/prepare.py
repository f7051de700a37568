"""Prepare a model of eager mode: observers for calibration, or modules and fake-quantizes for training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from qfx.eager.convert import convert
from qfx.eager.custom import get_default_custom_config_dict
from qfx.eager.errors import ModuleStateError
from qfx.eager.mappings import get_default_qat_module_mappings
from qfx.eager.observe import add_observers_
from qfx.eager.propagate import propagate_qconfig_
from qfx.frames import warn
from qfx.nn.stubs import QuantWrapper
from qfx.utilities import has_no_children_ignoring_parametrizations


def add_quant_dequant(module: nn.Module) -> nn.Module:
    """Put a :class:`QuantWrapper` around every module without children that has a ``qconfig``.

    Args:
        module: the model, changed in place. Give modules a ``qconfig`` first (``propagate_qconfig_``).

    Returns:
        The model; a new wrapper where the model itself has no children and a ``qconfig``.

    Example:
        >>> from qfx.config import default_qconfig
        >>> layer = nn.Linear(4, 2)
        >>> layer.qconfig = default_qconfig
        >>> type(add_quant_dequant(layer)).__name__
        'QuantWrapper'
    """
    return _wrapped(module, {})


def _wrapped(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        if has_no_children_ignoring_parametrizations(module) and getattr(module, "qconfig", None):
            done[module] = QuantWrapper(module)
        else:
            done[module] = module
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = _wrapped(child, done)
    return done[module]


def prepare(
    model: nn.Module,
    inplace: bool = False,
    allow_list: Collection[Any] | None = None,
    observer_non_leaf_module_list: Collection[Any] | None = None,
    prepare_custom_config_dict: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Add observers to a model, to be calibrated by running it and then given to ``convert``.

    Args:
        model: a float model in evaluation mode, with ``qconfig`` on itself or on modules; modules inherit it. Fuse it
            first (``fuse_modules``), and mark where integers begin and end (``QuantStub``, ``DeQuantStub``).
        inplace: change ``model`` instead of a copy. Default False.
        allow_list: classes that are observed where they have no children. By default all that have a quantized form.
        observer_non_leaf_module_list: classes that are observed although they have children. None by default.
        prepare_custom_config_dict: ``float_to_observed_custom_module_class``, a dict from a class to one whose
            ``from_float`` makes the observed module; ``non_traceable_module_name`` and ``non_traceable_module_class``,
            lists of what inherits no ``qconfig``. By default ``nn.LSTM`` and ``nn.MultiheadAttention`` become those
            of ``qfx.nn.quantizable``.

    Returns:
        The prepared model. It warns where no module has a ``qconfig``.

    Raises:
        ConfigError: a transposed convolution is to have a weight scale per channel.
        ModuleStateError: the model is on several devices.

    Example:
        >>> import torch
        >>> from qfx.config import get_default_qconfig
        >>> from qfx.eager import convert
        >>> model = QuantWrapper(nn.Linear(4, 2)).eval()
        >>> model.qconfig = get_default_qconfig("x86")
        >>> prepared = prepare(model)
        >>> prepared(torch.randn(8, 4)).shape
        torch.Size([8, 2])
        >>> type(convert(prepared).module)
        <class 'qfx.nn.quantized.linear.Linear'>
    """
    custom = get_default_custom_config_dict() if prepare_custom_config_dict is None else prepare_custom_config_dict
    if not inplace:
        model = copy.deepcopy(model)
    propagate_qconfig_(model, prepare_custom_config_dict=custom)
    if not any(getattr(module, "qconfig", None) for module in model.modules()):
        warn(
            "None of the submodule got qconfig applied. Make sure you passed correct configuration through "
            "`qconfig_dict` or by assigning the `.qconfig` attribute directly on submodules",
        )
    add_observers_(
        model,
        allow_list,
        observer_non_leaf_module_list,
        custom_module_class_mapping=custom.get("float_to_observed_custom_module_class", {}),
    )
    return model


def prepare_qat(model: nn.Module, mapping: Mapping[Any, Any] | None = None, inplace: bool = False) -> nn.Module:
    """Make a model that is trained with the rounding its integers will have, and then given to ``convert``.

    Args:
        model: a float model in training mode, with ``qconfig`` on itself or on modules; fused by ``fuse_modules_qat``.
        mapping: class to the class of ``qfx.nn.qat`` that replaces it. By default
            ``get_default_qat_module_mappings()``.
        inplace: change ``model`` instead of a copy; modules that are replaced share their parameters with it. Default
            False.

    Raises:
        ModuleStateError: the model is in evaluation mode.
    """
    if not model.training:
        raise ModuleStateError("prepare_qat only works on models in training mode; call model.train() first")
    if mapping is None:
        mapping = get_default_qat_module_mappings()
    if not inplace:
        model = copy.deepcopy(model)
    propagate_qconfig_(model)
    convert(model, mapping=mapping, inplace=True, remove_qconfig=False)
    return prepare(model, observer_non_leaf_module_list=set(mapping.values()), inplace=True)
