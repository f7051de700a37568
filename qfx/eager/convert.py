"""Convert a calibrated or trained model of eager mode."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.eager.custom import get_default_custom_config_dict
from qfx.eager.mappings import (
    get_default_static_quant_module_mappings,
    get_default_static_quant_reference_module_mappings,
)
from qfx.eager.observe import remove_qconfig as _remove_qconfig
from qfx.eager.swap import Swapping
from qfx.frames import warn


def convert(
    module: nn.Module,
    mapping: Mapping[Any, Any] | None = None,
    inplace: bool = False,
    remove_qconfig: bool = True,
    is_reference: bool = False,
    convert_custom_config_dict: Mapping[str, Any] | None = None,
    use_precomputed_fake_quant: bool = False,
) -> nn.Module:
    """Replace the modules of a prepared model by their quantized forms.

    Args:
        module: a model that ``prepare`` or ``prepare_qat`` returned, after calibration or training. The model itself
            is not replaced, only what is in it: wrap a single layer in a ``QuantWrapper``.
        mapping: class to a class with ``from_float``. By default ``get_default_static_quant_module_mappings()``.
        inplace: change ``module`` instead of a copy. Default False.
        remove_qconfig: take configurations, observers and their hooks off. Default True.
        is_reference: use reference classes, which compute in float on quantized weights, unless there is a
            ``mapping``. Default False.
        convert_custom_config_dict: ``observed_to_quantized_custom_module_class``, a dict from an observed class to
            one with ``from_observed``. By default that of ``get_default_custom_config_dict()``.
        use_precomputed_fake_quant: take the range a weight's observer has, instead of looking at the weight again.
            Default False.

    Returns:
        The quantized model; each module packs its weight for the engine selected in torch.

    Raises:
        QfxError: what the quantized class of a module says; a note names the module's path.
    """
    if not inplace:
        module = copy.deepcopy(module)
    mapping = _mapping(mapping, is_reference)
    if getattr(module, "qconfig", None) is not None and type_before_parametrizations(module) in mapping:
        warn(
            f"the model itself is a {type(module).__name__} and stays one: convert replaces what is in a model; wrap "
            "it, e.g. in a QuantWrapper",
        )
    replace_children(
        module,
        mapping,
        convert_custom_config_dict=convert_custom_config_dict,
        use_precomputed_fake_quant=use_precomputed_fake_quant,
        inplace=True,
    )
    if remove_qconfig:
        _remove_qconfig(module)
    return module


def replace_children(
    module: nn.Module,
    mapping: Mapping[Any, Any] | None = None,
    inplace: bool = False,
    is_reference: bool = False,
    convert_custom_config_dict: Mapping[str, Any] | None = None,
    use_precomputed_fake_quant: bool = False,
) -> nn.Module:
    """Replace the modules of a model and leave configurations on them; the arguments are those of `convert`."""
    if not inplace:
        module = copy.deepcopy(module)
    custom = get_default_custom_config_dict() if convert_custom_config_dict is None else convert_custom_config_dict
    classes = custom.get("observed_to_quantized_custom_module_class", {})
    Swapping(_mapping(mapping, is_reference), classes, use_precomputed_fake_quant).children(module)
    return module


def _mapping(mapping: Mapping[Any, Any] | None, is_reference: bool) -> Mapping[Any, Any]:
    if mapping is not None:
        return mapping
    if is_reference:
        return get_default_static_quant_reference_module_mappings()
    return get_default_static_quant_module_mappings()
