"""Cheap attributes for modules that are made by the thousand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_PLAIN = frozenset({int, float, bool, str, tuple, list, torch.dtype, torch.qscheme, torch._ops.OpOverloadPacket})

# What nn.Module's constructor leaves behind: values all modules may share, and tables each has its own of.
_NEW = nn.Module().__dict__
_TABLES = tuple((name, type(value)) for name, value in _NEW.items() if isinstance(value, dict | set | list))
_SHARED = {name: value for name, value in _NEW.items() if name not in dict(_TABLES)}


def start(module: nn.Module) -> None:
    """``nn.Module.__init__(module)``, at half the price: it sets its tables one by one, past ``__setattr__``."""
    own = module.__dict__
    own.update(_SHARED)
    for name, kind in _TABLES:
        own[name] = kind()


class QuickAttributes:
    """Mixin before ``nn.Module``: numbers, words and lists are set without a search for parameters in them.

    ``nn.Module.__setattr__`` asks of every value whether it is a parameter, a buffer or a module, which is a third of
    the cost of making an observer.
    """

    def put(self, **values: Any) -> None:
        """Set attributes that are no parameters, buffers or modules of this one, whatever they are: a packed weight."""
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if type(value) in _PLAIN and not (
            name in own.get("_parameters", ()) or name in own.get("_buffers", ()) or name in own.get("_modules", ())
        ):
            own[name] = value
        else:
            super().__setattr__(name, value)
