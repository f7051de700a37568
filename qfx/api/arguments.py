"""What the functions of FX mode do with arguments they have in common."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY

from qfx.errors import ConfigError


def as_config(cls: type[Any], value: Any, name: str) -> Any:
    """A configuration of a class, given as such, as its dictionary, or not at all (None).

    Raises:
        ConfigError: it is something else; `name` is the argument's.
    """
    if value is None or isinstance(value, cls):
        return value
    if isinstance(value, dict):
        return cls.from_dict(value)
    raise ConfigError(f"{name} is a {cls.__name__} or its dictionary, got {type(value).__name__}")


def preserve(model: nn.Module, gm: GraphModule, names: list[str]) -> None:
    """Give a graph module attributes of the model it was made of.

    Raises:
        ConfigError: the model does not have one.
    """
    for name in names:
        if not hasattr(model, name):
            raise ConfigError(f"preserved_attributes names {name!r}, which {type(model).__name__} does not have")
        setattr(gm, name, getattr(model, name))
    if names:  # where torch.fx looks for what its copies are to keep
        gm.meta[_USER_PRESERVED_ATTRIBUTES_KEY] = {name: getattr(model, name) for name in names}
