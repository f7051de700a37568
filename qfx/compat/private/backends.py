"""What the patterns of a backend config say, by pattern (``backend_config.utils``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from qfx.config import BackendConfig, BackendPatternConfig


def _by_pattern(backend_config: BackendConfig, of: Callable[[BackendPatternConfig], Any]) -> dict[Any, Any]:
    return {c.nested_pattern: of(c) for c in backend_config.configs}


def _given(backend_config: BackendConfig, of: Callable[[BackendPatternConfig], Any]) -> dict[Any, Any]:
    return {pattern: found for pattern, found in _by_pattern(backend_config, of).items() if found is not None}


def get_pattern_to_dtype_configs(backend_config: BackendConfig) -> dict[Any, list[Any]]:
    """The dtype configs of each pattern."""
    return _by_pattern(backend_config, lambda config: config.dtype_configs)


def get_pattern_to_input_type_to_index(backend_config: BackendConfig) -> dict[Any, dict[str, int]]:
    """Where weight and bias stand among the arguments of each pattern."""
    return _by_pattern(backend_config, lambda config: config._input_type_to_index)


def get_qat_module_classes(backend_config: BackendConfig) -> tuple[type, ...]:
    """The classes that train, once each."""
    return tuple(dict.fromkeys(c.qat_module for c in backend_config.configs if c.qat_module is not None))


def get_fused_module_classes(backend_config: BackendConfig) -> tuple[type, ...]:
    """The fused classes, once each."""
    return tuple(dict.fromkeys(c.fused_module for c in backend_config.configs if c.fused_module is not None))


def get_root_module_to_quantized_reference_module(
    backend_config: BackendConfig,
) -> dict[type[nn.Module], type[nn.Module]]:
    """The reference class of each class with a weight."""
    return {
        c.root_module: c.reference_quantized_module
        for c in backend_config.configs
        if c.root_module is not None and c.reference_quantized_module is not None
    }


def get_module_to_qat_module(backend_config: BackendConfig) -> dict[Any, type[nn.Module]]:
    """The class that trains in the place of each pattern."""
    return _given(backend_config, lambda config: config.qat_module)


def get_fuser_method_mapping(backend_config: BackendConfig) -> dict[Any, Any]:
    """The fuser method of each pattern, taking its arguments in the order of the reversed nested format."""
    return _given(backend_config, _get_fuser_method_in_reversed_nested_tuple_format)


def get_fusion_pattern_to_root_node_getter(backend_config: BackendConfig) -> dict[Any, Callable[..., Any]]:
    """The root node getter of each pattern that has one."""
    return _given(backend_config, lambda config: config._root_node_getter)


def get_fusion_pattern_to_extra_inputs_getter(backend_config: BackendConfig) -> dict[Any, Callable[..., Any]]:
    """The extra inputs getter of each pattern that has one."""
    return _given(backend_config, lambda config: config._extra_inputs_getter)


def _get_pattern_in_reversed_nested_tuple_format(config: BackendPatternConfig) -> Any:
    """The pattern, last operator first: ``(nn.ReLU, nn.Conv2d)`` is a convolution and then a relu.

    Raises:
        ConfigError: the config has no pattern.
    """
    return config.nested_pattern


def _get_fuser_method_in_reversed_nested_tuple_format(config: BackendPatternConfig) -> Any:
    """The fuser method of a config, taking the pattern's parts in the order of the reversed nested format."""
    method = config.fuser_method
    if method is None or config._pattern_complex_format is not None:
        return method
    plain: Any = method
    if isinstance(config.pattern, tuple) and len(config.pattern) == 2:
        return lambda is_qat, last, first: plain(is_qat, first, last)
    if isinstance(config.pattern, tuple) and len(config.pattern) == 3:
        return lambda is_qat, last, rest: plain(is_qat, rest[1], rest[0], last)
    return method


def remove_boolean_dispatch_from_name(p: Any) -> Any:
    """The public name of a function ``torch.nn.functional`` makes by choosing between two; anything else as it is."""
    chooses = getattr(p, "__qualname__", "").startswith("boolean_dispatch.")
    return f"{p.__module__}.{p.__name__}" if chooses else p


def pattern_to_human_readable(p: Any) -> Any:
    """A pattern with names in the place of functions whose own say nothing."""
    if isinstance(p, tuple):
        return tuple(pattern_to_human_readable(part) for part in p)
    return p if isinstance(p, str) else remove_boolean_dispatch_from_name(p)


def entry_to_pretty_str(entry: dict[str, Any]) -> str:
    """What ``BackendPatternConfig.to_dict`` gives, on a line a key."""

    def item(key: str, value: Any) -> str:
        if key in ("pattern", "pattern_complex_format"):
            value = pattern_to_human_readable(value)
        if key != "dtype_configs":
            return f"  {key!r}: {value},\n"
        lines = ("".join(f"      {name!r}: {dtype},\n" for name, dtype in each.items()) for each in value)
        return "  'dtype_configs': [\n" + "".join(f"    {{\n{body}    }},\n" for body in lines) + "  ],\n"

    first = ("pattern", "dtype_configs", "observation_type")
    order = [*(key for key in first if key in entry), *(key for key in entry if key not in first)]
    return "{\n" + "".join(item(key, entry[key]) for key in order) + "}"
