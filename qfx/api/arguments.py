"""What the functions of FX mode do with arguments they have in common."""

from __future__ import annotations

from typing import Any

import torch
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


def as_examples(example_inputs: Any) -> tuple[Any, ...] | list[Any]:
    """The arguments of a model; one tensor, which `(x)` is too, stands for itself.

    Raises:
        ConfigError: it is something else than a tuple, a list or a tensor.
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    if not isinstance(example_inputs, tuple | list):
        raise ConfigError(f"example_inputs is a tuple of the model's arguments, got {type(example_inputs).__name__}")
    return example_inputs


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
