"""What eager mode refuses: each class is also the builtin that callers of the original used to catch."""

from __future__ import annotations

from qfx.errors import ConfigError, ModelStateError


class ModuleStateError(ModelStateError, AssertionError):
    """A module is in the wrong mode, on several devices or without what the step needs."""


class NoCounterpartError(ConfigError, AssertionError):
    """A table has no fused or quantized form of this class."""


class FusionError(ConfigError, NotImplementedError):
    """These modules have no fused form."""


class UnknownDtypeError(ConfigError, RuntimeError):
    """There is no default configuration for this dtype."""


class NoSuchModuleError(ConfigError, AttributeError):
    """A path leads to no module of the model."""
