"""Modules by path, and what they are called with."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from qfx.errors import ModelStateError
from qfx.frames import warn


def getattr_from_fqn(obj: Any, fqn: str) -> Any:
    """Return what a dotted path leads to: ``getattr_from_fqn(model, "layer1.0.weight")``."""
    return functools.reduce(getattr, fqn.split("."), obj)


def has_no_children_ignoring_parametrizations(module: nn.Module) -> bool:
    """Whether a module has no submodules but those that compute its parameters (``torch.nn.utils.parametrize``)."""
    own = set(module._modules)
    return not own or (parametrize.is_parametrized(module) and own == {"parametrizations"})


def parent_and_name(target: str) -> tuple[str, str]:
    """Split a path into that of the owner and the last name: ``"a.b.c"`` into ``("a.b", "c")``."""
    owner, _, name = target.rpartition(".")
    return owner, name


def path_of_module(root: nn.Module, submodule: nn.Module) -> str | None:
    """Return the first path at which a module stands in ``root``, ``""`` for itself; None where it does not."""
    return next((path for path, module in root.named_modules() if module is submodule), None)


def default_arguments(f: Callable[..., Any]) -> OrderedDict[str, Any]:
    """Return the parameters of ``f`` that may be left out, with their defaults; ``*args`` is ``()``."""
    found: OrderedDict[str, Any] = OrderedDict()
    for name, parameter in inspect.signature(f).parameters.items():
        if parameter.default is not parameter.empty:
            found[name] = parameter.default
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found[name] = ()
        elif parameter.kind is parameter.VAR_KEYWORD:
            found[name] = {}
    return found


def known_arguments(f: Callable[..., Any], loc: dict[str, Any]) -> dict[str, Any]:
    """Return those of some values that ``f`` has a parameter for."""
    names = inspect.signature(f).parameters
    return {name: value for name, value in loc.items() if name in names}


def completed_arguments(func: Callable[..., Any], loc: dict[str, Any]) -> OrderedDict[str, Any]:
    """Return the parameters of ``func`` that may be left out, with the values given and defaults for the others."""
    defaults = default_arguments(func)
    defaults.update({name: value for name, value in known_arguments(func, loc).items() if name in defaults})
    return defaults


def positional_count(f: Callable[..., Any]) -> int:
    """Return how many parameters of ``f`` can be given by position, ``self`` included."""
    return len(inspect.getfullargspec(f).args)


def get_fqn_to_example_inputs(model: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """Run a model once and return what each of its modules was called with.

    Args:
        model: run in the mode it is in.
        example_inputs: a tuple of its arguments.

    Returns:
        Path -> arguments of the last call, in the order of the module's parameters; those left out have their
        defaults, so a call ``sub(x, key2=6)`` of ``forward(self, x, key1=3, key2=3)`` gives ``(x, 3, 6)``. The model
        itself is ``""``.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> {path: args[0].shape for path, args in get_fqn_to_example_inputs(net, (torch.zeros(1, 2),)).items()}
        {'': torch.Size([1, 2]), '0': torch.Size([1, 2]), '1': torch.Size([1, 3])}
    """
    found: dict[str, tuple[Any, ...]] = {}

    def record(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found[path] = _as_positional(module, args, kwargs)

    handles = [
        module.register_forward_pre_hook(functools.partial(record, path), with_kwargs=True)
        for path, module in model.named_modules()
    ]
    try:
        model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _as_positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    values: list[Any] = []
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            values.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            values.extend(value.values())
        else:
            values.append(value)
    return tuple(values)


def unique_device(module: nn.Module) -> torch.device | None:
    """Return the device all parameters and buffers of a module are on; None where it has none.

    ``meta`` beside ``cpu`` counts as ``cpu``, with a warning.

    Raises:
        ModelStateError: it has several.
    """
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if devices == {torch.device("cpu"), torch.device("meta")}:
        warn("the module is partly on meta and partly on cpu; taken as cpu")
        return torch.device("cpu")
    if len(devices) > 1:
        shown = ", ".join(sorted(map(str, devices)))
        raise ModelStateError(f"a model to be quantized lies on one device, this {type(module).__name__} on {shown}")
    return next(iter(devices), None)
