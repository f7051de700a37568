"""Float modules that one quantized kernel replaces together: containers that only remember what belongs together."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.nn.errors import ModuleTypeError


class _FusedModule(nn.Sequential):
    """Base of every fused container; passes recognise one by it.

    A subclass names its parts and their classes as keywords of its class statement; the constructor takes modules of
    exactly those classes in that order, by position or name.
    """

    _PARTS: ClassVar[dict[str, type[nn.Module]]] = {}

    def __init_subclass__(cls, **parts: type[nn.Module]) -> None:
        super().__init_subclass__()
        if parts:
            cls._PARTS = parts
            named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in parts]
            cls.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self._PARTS:
            super().__init__(*args)
            return
        expected = list(self._PARTS.values())
        whole = len(args) == len(expected) and not kwargs
        modules = args if whole else inspect.signature(type(self)).bind(*args, **kwargs).args
        if list(map(type, modules)) == expected:
            super().__init__(*modules)
            return
        found = [type_before_parametrizations(module) for module in modules]
        if found != expected:
            raise ModuleTypeError(
                f"Incorrect types for input modules: {type(self).__name__} takes {_names(expected)}, "
                f"but got {_names(found)}"
            )
        super().__init__(*modules)


def _names(kinds: list[type]) -> str:
    return " and ".join(kind.__name__ for kind in kinds)


class ConvReLU1d(_FusedModule, conv=nn.Conv1d, relu=nn.ReLU):
    """A Conv1d, then a ReLU."""


class ConvReLU2d(_FusedModule, conv=nn.Conv2d, relu=nn.ReLU):
    """A Conv2d, then a ReLU."""


class ConvReLU3d(_FusedModule, conv=nn.Conv3d, relu=nn.ReLU):
    """A Conv3d, then a ReLU."""


class ConvBn1d(_FusedModule, conv=nn.Conv1d, bn=nn.BatchNorm1d):
    """A Conv1d, then its BatchNorm1d."""


class ConvBn2d(_FusedModule, conv=nn.Conv2d, bn=nn.BatchNorm2d):
    """A Conv2d, then its BatchNorm2d."""


class ConvBn3d(_FusedModule, conv=nn.Conv3d, bn=nn.BatchNorm3d):
    """A Conv3d, then its BatchNorm3d."""


class ConvBnReLU1d(_FusedModule, conv=nn.Conv1d, bn=nn.BatchNorm1d, relu=nn.ReLU):
    """A Conv1d, its BatchNorm1d and a ReLU."""


class ConvBnReLU2d(_FusedModule, conv=nn.Conv2d, bn=nn.BatchNorm2d, relu=nn.ReLU):
    """A Conv2d, its BatchNorm2d and a ReLU."""


class ConvBnReLU3d(_FusedModule, conv=nn.Conv3d, bn=nn.BatchNorm3d, relu=nn.ReLU):
    """A Conv3d, its BatchNorm3d and a ReLU."""


class BNReLU2d(_FusedModule, batch_norm=nn.BatchNorm2d, relu=nn.ReLU):
    """A BatchNorm2d, then a ReLU."""


class BNReLU3d(_FusedModule, batch_norm=nn.BatchNorm3d, relu=nn.ReLU):
    """A BatchNorm3d, then a ReLU."""


class LinearReLU(_FusedModule, linear=nn.Linear, relu=nn.ReLU):
    """A Linear, then a ReLU."""


class LinearBn1d(_FusedModule, linear=nn.Linear, bn=nn.BatchNorm1d):
    """A Linear, then its BatchNorm1d."""


class LinearLeakyReLU(_FusedModule, linear=nn.Linear, leaky_relu=nn.LeakyReLU):
    """A Linear, then a LeakyReLU."""


class LinearTanh(_FusedModule, linear=nn.Linear, tanh=nn.Tanh):
    """A Linear, then a Tanh."""


class ConvAdd2d(_FusedModule):
    """A Conv2d whose output another tensor is added to: ``add(conv(x1), x2)``."""

    def __init__(self, conv: nn.Module, add: Any) -> None:
        super().__init__(conv)
        self.add = add

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Convolve ``x1`` and add ``x2``."""
        return self.add(self[0](x1), x2)  # type: ignore[no-any-return]


class ConvAddReLU2d(_FusedModule):
    """A Conv2d, the addition of another tensor, and a ReLU: ``relu(add(conv(x1), x2))``."""

    def __init__(self, conv: nn.Module, add: Any, relu: nn.Module) -> None:
        super().__init__(conv)
        self.add = add
        self.relu = relu

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Convolve ``x1``, add ``x2``, clamp at zero."""
        return self.relu(self.add(self[0](x1), x2))  # type: ignore[no-any-return]
