"""What people call the classes and functions a configuration names."""

from __future__ import annotations

import operator
from functools import cache

import torch
from torch.nn import functional

_HOMES = (("torch.nn", torch.nn), ("torch.nn.functional", functional), ("torch", torch), ("operator", operator))


@cache
def public_name(target: object) -> str:
    """Return the name a user would write for a class, function or method name.

    Example:
        >>> public_name(torch.nn.Conv2d), public_name(torch.nn.functional.relu), public_name("reshape")
        ('torch.nn.Conv2d', 'torch.nn.functional.relu', "'reshape'")
    """
    if isinstance(target, str):
        return repr(target)
    name = getattr(target, "__name__", None)
    if name is None:
        return repr(target)
    for home, module in _HOMES:
        if getattr(module, name, None) is target:
            return f"{home}.{name}"
    # Dispatchers of torch.nn.functional are all called "fn": find what they are bound to.
    for bound, value in vars(functional).items():
        if value is target:
            return f"torch.nn.functional.{bound}"
    module_name = getattr(target, "__module__", None)
    qualified = getattr(target, "__qualname__", name)
    return f"{module_name}.{qualified}" if module_name else qualified
