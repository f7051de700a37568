"""Lookups of single entries of a mapping (``fx.qconfig_mapping_utils``), each with what to give where none fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qfx.config import QConfigMapping
from qfx.config.qconfig import QConfigAny
from qfx.config.resolve import GLOBAL, resolve
from qfx.errors import ConfigError


def _get_object_type_qconfig(
    qconfig_mapping: QConfigMapping, object_type: Callable[..., Any] | str, fallback_qconfig: QConfigAny
) -> QConfigAny:
    """The entry for a class, function or method name."""
    return qconfig_mapping.object_type_qconfigs.get(object_type, fallback_qconfig)


def _get_module_name_regex_qconfig(
    qconfig_mapping: QConfigMapping, module_name: str, fallback_qconfig: QConfigAny
) -> QConfigAny:
    """The first regular expression that fits a path."""
    only = QConfigMapping()
    only.module_name_regex_qconfigs = qconfig_mapping.module_name_regex_qconfigs
    return _found(only, module_name, fallback_qconfig)


def _get_module_name_qconfig(
    qconfig_mapping: QConfigMapping, module_name: str, fallback_qconfig: QConfigAny
) -> QConfigAny:
    """The entry for a path, or for the innermost module around it that has one; the whole model, ``""``, has none."""
    if module_name == "":
        return fallback_qconfig
    only = QConfigMapping()
    only.module_name_qconfigs = qconfig_mapping.module_name_qconfigs
    return _found(only, module_name, fallback_qconfig)


def _found(mapping: QConfigMapping, path: str, fallback: QConfigAny) -> QConfigAny:
    found = resolve(mapping, object_types=(), module_path=path, index=0)
    return fallback if found.entry.kind == GLOBAL else found.qconfig


def _maybe_adjust_qconfig_for_module_type_or_name(
    qconfig_mapping: QConfigMapping, module_type: Callable[..., Any], module_name: str, global_qconfig: QConfigAny
) -> QConfigAny:
    """Class, then regular expression, then path: the later, the stronger."""
    of_type = _get_object_type_qconfig(qconfig_mapping, module_type, global_qconfig)
    of_regex = _get_module_name_regex_qconfig(qconfig_mapping, module_name, of_type)
    return _get_module_name_qconfig(qconfig_mapping, module_name, of_regex)


def _maybe_adjust_qconfig_for_module_name_object_type_order(
    qconfig_mapping: QConfigMapping,
    cur_module_path: str,
    cur_object_type: Callable[..., Any],
    cur_object_type_idx: int,
    fallback_qconfig: QConfigAny,
) -> QConfigAny:
    """The entry for the so-manieth call of a class or function in a module."""
    key = (cur_module_path, cur_object_type, cur_object_type_idx)
    return qconfig_mapping.module_name_object_type_order_qconfigs.get(key, fallback_qconfig)


def _get_flattened_qconfig_dict(qconfig_mapping: QConfigMapping) -> dict[Any, QConfigAny]:
    """Global entry (key ``""``), classes and paths in one dictionary, as eager mode takes it."""
    return {
        "": qconfig_mapping.global_qconfig,
        **qconfig_mapping.object_type_qconfigs,
        **qconfig_mapping.module_name_qconfigs,
    }


def _check_is_valid_config_dict(config_dict: Any, allowed_keys: set[str], dict_name: str) -> None:
    """Refuse a dictionary with keys nobody reads.

    Raises:
        ConfigError: names the first of them; it is a ValueError, too.
    """
    for key in config_dict:
        if key not in allowed_keys:
            raise ConfigError(f"Expected {dict_name} to have the following keys: {allowed_keys}. But found '{key}'")
