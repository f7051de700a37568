"""QConfigDynamic: the old pair for dynamic quantization."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from qfx.errors import ConfigError


class _Pair(NamedTuple):
    activation: Any
    weight: Any


class QConfigDynamic(_Pair):
    """How one layer is quantized dynamically; ``QConfig`` with an observer that ``is_dynamic`` says the same.

    Args:
        activation: factory of observers; ``nn.Identity`` by default.
        weight: factory of observers of the weight; ``nn.Identity`` by default.

    Raises:
        ConfigError: an observer was given as the weight instead of a factory.

    Example:
        >>> from qfx.observers import default_weight_observer
        >>> QConfigDynamic(weight=default_weight_observer).activation
        <class 'torch.nn.modules.linear.Identity'>
    """

    __slots__ = ()

    def __new__(cls, activation: Any = nn.Identity, weight: Any = nn.Identity) -> QConfigDynamic:
        """Make a pair; see the class."""
        if isinstance(weight, nn.Module):
            name = type(weight).__name__
            raise ConfigError(
                f"QConfigDynamic received observer instance, please pass observer class instead: {name} or "
                f"{name}.with_args(...) as weight"
            )
        return super().__new__(cls, activation, weight)
