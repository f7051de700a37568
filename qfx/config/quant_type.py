"""Kinds of quantization."""

from __future__ import annotations

import enum

from qfx.errors import ConfigError


class QuantType(enum.IntEnum):
    """When scales are chosen: per input, after calibration, while training, or for weights alone."""

    DYNAMIC = 0
    STATIC = 1
    QAT = 2
    WEIGHT_ONLY = 3

    @property
    def key(self) -> str:
        """How a configuration dictionary spells it: ``"static"``."""
        return self.name.lower()

    @classmethod
    def from_key(cls, key: str) -> QuantType:
        """Return the kind a configuration dictionary spells ``key``.

        Raises:
            ConfigError: no kind is spelled so.
        """
        for kind in cls:
            if kind.key == key:
                return kind
        raise ConfigError(f"unknown QuantType name {key!r}; use one of {', '.join(repr(kind.key) for kind in cls)}")
