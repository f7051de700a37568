"""BackendConfig: the patterns a backend can quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qfx.config.backend_config.pattern_config import BackendPatternConfig, Pattern
from qfx.config.dicts import PrintedFields, check_keys, check_list
from qfx.errors import ConfigError


class BackendConfig(PrintedFields):
    """The patterns a backend can quantize and what it does with each.

    Setters return the configuration, so they chain. Setting a pattern again replaces its configuration in place,
    whichever of the two formats it is written in.

    Args:
        name: what messages call the backend.

    Example:
        >>> import torch
        >>> mine = BackendConfig("mine").set_backend_pattern_config(BackendPatternConfig(torch.nn.Linear))
        >>> [config.pattern.__name__ for config in mine.configs]
        ['Linear']
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        # Nested format -> configuration, in the order they were set.
        self._pattern_complex_format_to_config: dict[Pattern, BackendPatternConfig] = {}

    def set_name(self, name: str) -> BackendConfig:
        """Set what messages call the backend."""
        self.name = name
        return self

    def set_backend_pattern_config(self, config: BackendPatternConfig) -> BackendConfig:
        """Set the configuration of one pattern.

        Raises:
            ConfigError: it is no ``BackendPatternConfig``, or has no pattern or an impossible one.
        """
        if not isinstance(config, BackendPatternConfig):
            raise ConfigError(f"a BackendConfig holds BackendPatternConfigs, got {config!r}")
        self._pattern_complex_format_to_config[config.nested_pattern] = config
        return self

    def set_backend_pattern_configs(self, configs: Sequence[BackendPatternConfig]) -> BackendConfig:
        """Set the configurations of several patterns."""
        for config in configs:
            self.set_backend_pattern_config(config)
        return self

    @property
    def configs(self) -> list[BackendPatternConfig]:
        """The configurations in the order they were set, as a new list."""
        return list(self._pattern_complex_format_to_config.values())

    @classmethod
    def from_dict(cls, backend_config_dict: dict[str, Any]) -> BackendConfig:
        """Return what ``to_dict`` wrote.

        Raises:
            ConfigError: an entry of ``"configs"`` is neither a dictionary nor a ``BackendPatternConfig``.
        """
        check_keys(cls.__name__, backend_config_dict, ("name", "configs"))
        made = cls(backend_config_dict.get("name", ""))
        for entry in check_list(cls.__name__, "configs", backend_config_dict.get("configs", [])):
            made.set_backend_pattern_config(BackendPatternConfig.from_dict(entry) if isinstance(entry, dict) else entry)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary with ``"name"`` and ``"configs"``, the latter as dictionaries."""
        return {"name": self.name, "configs": [config.to_dict() for config in self.configs]}
