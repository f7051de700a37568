"""BackendPatternConfig: what a backend can do with one pattern of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import nn

from qfx.config.backend_config.dtype_config import DTypeConfig
from qfx.config.backend_config.observation_type import ObservationType
from qfx.config.dicts import PrintedFields, check_keys, check_list
from qfx.errors import ConfigError

Pattern: TypeAlias = Any
"""A module class, a function, the name of a tensor method, or a tuple of them (see ``BackendPatternConfig``)."""

NodePattern: TypeAlias = Any
"""What a pattern matched, in the nested format: a node, or a tuple of the last node and what matched its arguments."""


class MatchAllNode:
    """Stands for any value in a pattern: ``(torch.add, nn.Conv2d, MatchAllNode)`` is a convolution plus anything.

    What it matches is no part of the match: it stays in the graph.
    """


# Attribute -> key in dictionaries, for what is copied as it is.
_PLAIN = {
    "pattern": "pattern",
    "root_module": "root_module",
    "qat_module": "qat_module",
    "reference_quantized_module": "reference_quantized_module_for_root",
    "fused_module": "fused_module",
    "fuser_method": "fuser_method",
    "_root_node_getter": "root_node_getter",
    "_extra_inputs_getter": "extra_inputs_getter",
    "_num_tensor_args_to_observation_type": "num_tensor_args_to_observation_type",
    "_input_type_to_index": "input_type_to_index",
    "_pattern_complex_format": "pattern_complex_format",
}


class BackendPatternConfig(PrintedFields):
    """What a backend can do with one pattern: its dtypes, how it is observed, what it is fused into.

    Setters return the configuration, so they chain.

    Args:
        pattern: a module class, a function, the name of a tensor method (``"reshape"``), or two or three of them in
            the order they are called: ``(nn.Conv2d, nn.ReLU)``.

    Example:
        >>> import torch
        >>> linear_relu = (
        ...     BackendPatternConfig((nn.Linear, nn.ReLU))
        ...     .set_observation_type(ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT)
        ...     .add_dtype_config(DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float))
        ... )
    """

    def __init__(self, pattern: Pattern | None = None) -> None:
        self.pattern: Pattern | None = pattern
        self.observation_type = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
        self.dtype_configs: list[DTypeConfig] = []
        self.root_module: type[nn.Module] | None = None
        self.qat_module: type[nn.Module] | None = None
        self.reference_quantized_module: type[nn.Module] | None = None
        self.fused_module: type[nn.Module] | None = None
        self.fuser_method: Callable[..., Any] | None = None
        self._root_node_getter: Callable[..., Any] | None = None
        self._extra_inputs_getter: Callable[..., Any] | None = None
        self._num_tensor_args_to_observation_type: dict[int, ObservationType] = {}
        self._input_type_to_index: dict[str, int] = {}
        self._pattern_complex_format: Pattern | None = None

    def set_pattern(self, pattern: Pattern) -> BackendPatternConfig:
        """Set the pattern, in the order its operators are called.

        Raises:
            ConfigError: the pattern was already given in the nested format.
        """
        if self._pattern_complex_format is not None:
            raise ConfigError(_ONE_FORMAT)
        self.pattern = pattern
        return self

    def set_observation_type(self, observation_type: ObservationType) -> BackendPatternConfig:
        """Set how the output is observed; by default it has an observer of its own."""
        self.observation_type = _observation_type(observation_type)
        return self

    def add_dtype_config(self, dtype_config: DTypeConfig) -> BackendPatternConfig:
        """Add dtypes the backend takes; the first that suits a ``QConfig`` is used."""
        self.dtype_configs.append(_dtype_config(dtype_config))
        return self

    def set_dtype_configs(self, dtype_configs: Sequence[DTypeConfig]) -> BackendPatternConfig:
        """Replace the dtypes the backend takes."""
        self.dtype_configs = [_dtype_config(dtype_config) for dtype_config in dtype_configs]
        return self

    def set_root_module(self, root_module: type[nn.Module]) -> BackendPatternConfig:
        """Set the class of the module that has the weight: ``nn.Linear`` for a fused linear and relu."""
        self.root_module = root_module
        return self

    def set_qat_module(self, qat_module: type[nn.Module]) -> BackendPatternConfig:
        """Set the class that replaces the pattern while training with simulated quantization."""
        self.qat_module = qat_module
        return self

    def set_reference_quantized_module(self, reference_quantized_module: type[nn.Module]) -> BackendPatternConfig:
        """Set the class that replaces the root module in a reference graph."""
        self.reference_quantized_module = reference_quantized_module
        return self

    def set_fused_module(self, fused_module: type[nn.Module]) -> BackendPatternConfig:
        """Set the class the pattern's modules are fused into."""
        self.fused_module = fused_module
        return self

    def set_fuser_method(self, fuser_method: Callable[..., Any]) -> BackendPatternConfig:
        """Set the function that fuses the pattern's modules: ``(is_qat, *modules) -> module``."""
        self.fuser_method = fuser_method
        return self

    def _set_root_node_getter(self, root_node_getter: Callable[..., Any]) -> BackendPatternConfig:
        self._root_node_getter = root_node_getter
        return self

    def _set_extra_inputs_getter(self, extra_inputs_getter: Callable[..., Any]) -> BackendPatternConfig:
        self._extra_inputs_getter = extra_inputs_getter
        return self

    def _set_num_tensor_args_to_observation_type(
        self, num_tensor_args_to_observation_type: dict[int, ObservationType]
    ) -> BackendPatternConfig:
        self._num_tensor_args_to_observation_type = num_tensor_args_to_observation_type
        return self

    def _set_input_type_to_index(self, input_type_to_index: dict[str, int]) -> BackendPatternConfig:
        self._input_type_to_index = input_type_to_index
        return self

    def _set_pattern_complex_format(self, pattern: Pattern) -> BackendPatternConfig:
        """Set a pattern in the nested format, last operator first: ``(nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))``."""
        if self.pattern is not None:
            raise ConfigError(_ONE_FORMAT)
        self._pattern_complex_format = pattern
        return self

    @property
    def nested_pattern(self) -> Pattern:
        """The pattern in the nested format, last operator first, however it was given.

        Raises:
            ConfigError: no pattern, or a tuple of another length than two or three.
        """
        if self._pattern_complex_format is not None:
            return self._pattern_complex_format
        if self.pattern is None:
            raise ConfigError("a BackendPatternConfig needs a pattern: BackendPatternConfig(nn.Linear)")
        return nested(self.pattern)

    @classmethod
    def from_dict(cls, backend_pattern_config_dict: dict[str, Any]) -> BackendPatternConfig:
        """Return what ``to_dict`` wrote; keys may be left out.

        Raises:
            ConfigError: an observation type or a dtype configuration that is none.
        """
        given = backend_pattern_config_dict
        check_keys(cls.__name__, given, ("observation_type", "dtype_configs", *_PLAIN.values()))
        config = cls()
        if "observation_type" in given:
            config.set_observation_type(given["observation_type"])
        for entry in check_list(cls.__name__, "dtype_configs", given.get("dtype_configs", [])):
            config.add_dtype_config(DTypeConfig.from_dict(entry) if isinstance(entry, dict) else entry)
        for attribute, key in _PLAIN.items():
            if key in given:
                setattr(config, attribute, given[key])
        if config.pattern is not None and config._pattern_complex_format is not None:
            raise ConfigError(_ONE_FORMAT)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of what was set, dtype configurations as dictionaries."""
        said: dict[str, Any] = {
            "observation_type": self.observation_type,
            "dtype_configs": [dtype_config.to_dict() for dtype_config in self.dtype_configs],
        }
        for attribute, key in _PLAIN.items():
            value = getattr(self, attribute)
            if value is not None and value != {}:
                said[key] = value
        return said


_ONE_FORMAT = "Only one of 'pattern' or 'pattern_complex_format' can be set: they are two ways to write the same"


def nested(pattern: Pattern) -> Pattern:
    """Return a pattern in the nested format, last operator first: ``(a, b, c)`` is ``(c, (b, a))``.

    Raises:
        ConfigError: a list, or a tuple of another length than two or three.
    """
    if isinstance(pattern, list):
        raise ConfigError(f"a pattern is a tuple, not a list: write {tuple(pattern)!r}")
    if not isinstance(pattern, tuple):
        return pattern
    if len(pattern) == 2:
        first, second = pattern
        return second, first
    if len(pattern) == 3:
        first, second, third = pattern
        return third, (second, first)
    raise ConfigError(f"Expected a tuple with 2 or 3 elements, got: {pattern!r}; split longer patterns")


def _observation_type(given: ObservationType | int) -> ObservationType:
    try:
        return ObservationType(given)
    except ValueError:
        known = ", ".join(map(str, ObservationType))
        raise ConfigError(f"an observation type is one of {known}, got {given!r}") from None


def _dtype_config(given: DTypeConfig) -> DTypeConfig:
    if isinstance(given, DTypeConfig):
        return given
    raise ConfigError(f"Expected a list of DTypeConfigs, got {given!r}")
