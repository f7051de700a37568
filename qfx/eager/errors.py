"""What eager mode refuses: each class is also the builtin that callers of the original used to catch."""

from __future__ import annotations

from qfx.errors import ConfigError
from qfx.nn.errors import FusionError as FusionError
from qfx.nn.errors import ModuleStateError as ModuleStateError


class NoCounterpartError(ConfigError):
    """A table has no fused or quantized form of this class."""


class UnknownDtypeError(ConfigError, RuntimeError):
    """There is no default configuration for this dtype."""


class NoSuchModuleError(ConfigError, AttributeError):
    """A path leads to no module of the model."""
