"""Operators whose output range is known beforehand, by spelling, with the observers that say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qfx.observers import (
    ObserverFactory,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
)

_ZERO_TO_ONE: tuple[Callable[..., Any] | str, ...] = (
    nn.Hardsigmoid,
    functional.hardsigmoid,
    "hardsigmoid",
    "hardsigmoid_",
    nn.Sigmoid,
    torch.sigmoid,
    "sigmoid",
    "sigmoid_",
    nn.Softmax,
)
_MINUS_ONE_TO_ONE: tuple[Callable[..., Any] | str, ...] = (nn.Tanh, torch.tanh, "tanh", "tanh_")

FIXED_RANGE_OBSERVERS: Mapping[Callable[..., Any] | str, ObserverFactory] = MappingProxyType(
    dict.fromkeys(_ZERO_TO_ONE, default_fixed_qparams_range_0to1_observer)
    | dict.fromkeys(_MINUS_ONE_TO_ONE, default_fixed_qparams_range_neg1to1_observer)
)
"""Spelling -> factory of the observer with the scale and zero point that kernels of this operator have built in."""
