"""What the functions of FX mode do with arguments they have in common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY

from qfx.capture import LEFT
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


def as_examples(example_inputs: Any, model: nn.Module) -> tuple[Any, ...] | list[Any] | None:
    """The arguments of a model in the order of its forward; `LEFT` for one that keeps its default. None for none.

    One tensor, which ``(x)`` is too, stands for itself; a dictionary has the arguments by name.

    Raises:
        ConfigError: it is something else than a tuple, a list, a dictionary or a tensor, or names an argument that the
            model does not have.
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    if isinstance(example_inputs, Mapping):
        return _in_order(example_inputs, model)
    if example_inputs is not None and not isinstance(example_inputs, tuple | list):
        raise ConfigError(
            "example_inputs is a tuple of the model's arguments, or a dictionary of them by name, got "
            f"{type(example_inputs).__name__}"
        )
    return example_inputs


def _in_order(named: Mapping[Any, Any], model: nn.Module) -> tuple[Any, ...]:
    parameters = inspect.signature(model.forward).parameters
    takes = [name for name, each in parameters.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    strangers = [str(name) for name in named if name not in takes]
    if strangers and len(takes) == len(parameters):
        raise ConfigError(
            f"example_inputs names {', '.join(strangers)}, and {type(model).__name__}.forward takes {', '.join(takes)}"
        )
    last = max((takes.index(name) for name in named if name in takes), default=-1)
    return tuple(named.get(name, LEFT) for name in takes[: last + 1])


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
