"""A 2-d convolution and the addition of another tensor, in all the orders onednn fuses, in the nested format."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qfx.config.backend_config.dtype_config import DTypeConfig
from qfx.config.backend_config.pattern_config import BackendPatternConfig, MatchAllNode, Pattern
from qfx.nn import intrinsic
from qfx.nn.intrinsic import fusers
from qfx.nn.quantized import reference

_ADDITIONS: tuple[Callable[..., Any], ...] = (torch.add, operator.add)


@dataclass(frozen=True)
class _Order:
    """Where things stand in one pattern; its methods are the functions a pattern carries.

    Attributes:
        side: argument of the addition that is the convolution, 0 or 1; the other is anything.
        norm: a batch norm lies between convolution and addition.
        relu: a relu follows the addition.
    """

    side: int
    norm: bool
    relu: bool

    def pattern(self, add: Callable[..., Any]) -> Pattern:
        conv: Any = (nn.BatchNorm2d, nn.Conv2d) if self.norm else nn.Conv2d
        inputs = (conv, MatchAllNode) if self.side == 0 else (MatchAllNode, conv)
        return (nn.ReLU, (add, *inputs)) if self.relu else (add, *inputs)

    def _addition(self, matched: Any) -> Any:
        return matched[1] if self.relu else matched

    def fuser(self, is_qat: bool, *modules: Any) -> Any:
        """The fuser method."""
        addition = self._addition(modules)
        relu = modules[0] if self.relu else None
        return fusers.fuse_conv_add(addition[1 + self.side], addition[0], relu, is_qat=is_qat)

    def root(self, matched: Any) -> Any:
        """The convolution among what was matched."""
        found = self._addition(matched)[1 + self.side]
        return found[1] if self.norm else found

    def extra_inputs(self, matched: Any) -> list[Any]:
        """What is added to the convolution."""
        return [self._addition(matched)[2 - self.side]]


def convolution_additions(dtypes: Sequence[DTypeConfig]) -> list[BackendPatternConfig]:
    """Convolution, batch norm or none, addition from either side, relu or none; and the fused modules."""
    made = []
    for relu, into in ((False, intrinsic.ConvAdd2d), (True, intrinsic.ConvAddReLU2d)):
        for side in (0, 1):
            for norm in (True, False):
                order = _Order(side, norm, relu)
                made += [_config(order, add, into).set_dtype_configs(dtypes) for add in _ADDITIONS]
        made.append(
            BackendPatternConfig(into)
            .set_dtype_configs(dtypes)
            .set_root_module(nn.Conv2d)
            .set_reference_quantized_module(reference.Conv2d)
        )
    return made


def _config(order: _Order, add: Callable[..., Any], into: type[nn.Module]) -> BackendPatternConfig:
    return (
        BackendPatternConfig()
        ._set_pattern_complex_format(order.pattern(add))
        .set_fused_module(into)
        .set_fuser_method(order.fuser)
        ._set_root_node_getter(order.root)
        ._set_extra_inputs_getter(order.extra_inputs)
    )
