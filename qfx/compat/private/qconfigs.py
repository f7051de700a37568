"""Lookups of single entries of a mapping (``fx.qconfig_mapping_utils``), each with what to give where none fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule

from qfx.api.skip import compare
from qfx.compat.private.backends import get_module_to_qat_module
from qfx.config import BackendConfig, DTypeConfig, QConfig, QConfigMapping, qconfig_equals
from qfx.config.backend_config import first_supported
from qfx.config.qconfig import QConfigAny
from qfx.config.resolve import GLOBAL, resolve
from qfx.errors import ConfigError
from qfx.nn.intrinsic import _FusedModule
from qfx.observers import ObserverBase

_compare_prepare_convert_qconfig_mappings = compare


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


def _update_qconfig_for_fusion(model: GraphModule, qconfig_mapping: QConfigMapping) -> None:
    """Configure each fused class a model has as the classes in it are; changes the mapping.

    Raises:
        ConfigError: they are configured differently.
    """
    by_class = qconfig_mapping.object_type_qconfigs
    for node in model.graph.find_nodes(op="call_module"):
        fused: Any = model.get_submodule(str(node.target))
        if not by_class or not isinstance(fused, _FusedModule):
            continue
        first, *others = (by_class.get(type(part)) for part in fused)
        if not all(qconfig_equals(other, first) for other in others):
            raise ConfigError(
                f"During fusion, we need to specify the same qconfigs for all module types in {type(fused)}; give "
                f"{', '.join(type(part).__name__ for part in fused)} one configuration"
            )
        if first is not None:
            by_class[type(fused)] = first


def _update_qconfig_for_qat(qconfig_mapping: QConfigMapping, backend_config: BackendConfig) -> None:
    """Configure the class that trains in the place of another as that one is; changes the mapping."""
    trained = get_module_to_qat_module(backend_config)
    by_class = qconfig_mapping.object_type_qconfigs
    for cls, qconfig in list(by_class.items()):
        if cls in trained:
            by_class[trained[cls]] = qconfig


def _is_qconfig_supported_by_dtype_configs(qconfig: QConfig, dtype_configs: list[DTypeConfig]) -> bool:
    """Whether one of the dtype configs suits a configuration."""
    return first_supported(qconfig, dtype_configs)[0] is not None


def _generate_node_name_to_qconfig(
    root: nn.Module,
    modules: Mapping[str, nn.Module],
    input_graph: Graph,
    qconfig_mapping: QConfigMapping,
    node_name_to_scope: Mapping[str, tuple[str, type]],
) -> dict[str, QConfigAny]:
    """The configuration of every node of a graph.

    Args:
        root: not asked; what is needed of it is in `modules`.
        modules: by path.
        input_graph: the graph.
        qconfig_mapping: where to look.
        node_name_to_scope: path and class of the module a node ran in, as `QuantizationTracer` noted them.

    Returns:
        Name of a node -> configuration; None for inputs, outputs and observers.
    """
    found: dict[str, QConfigAny] = {}
    calls: Counter[tuple[str, Any]] = Counter()
    for node in input_graph.nodes:
        scope, scope_type = node_name_to_scope.get(node.name, ("", None))
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        found[node.name] = None
        if node.op in ("placeholder", "output") or isinstance(module, ObserverBase):
            continue
        path, kind = scope, node.target
        if module is not None:
            path, kind, scope_type = str(node.target), type(module), None
            scope = path.rpartition(".")[0]
        elif node.op == "get_attr":
            kind = scope_type
        index = calls[scope, kind]
        calls[scope, kind] += 1
        found[node.name] = resolve(
            qconfig_mapping,
            object_types=[kind],
            module_path=path,
            index=index,
            scope=scope,
            scope_type=scope_type if scope else None,
        ).qconfig
    return found
