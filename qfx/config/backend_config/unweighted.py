"""Patterns of operators without a quantized weight, as tables: arithmetic, activations, pools, moves of data."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qfx.config.backend_config.dtype_config import DTypeConfig
from qfx.config.backend_config.dtypes import with_fixed_range
from qfx.config.backend_config.observation_type import ObservationType
from qfx.config.backend_config.pattern_config import BackendPatternConfig
from qfx.config.fixed_range import FIXED_RANGE_OBSERVERS

DTypes = Sequence[DTypeConfig]
Op = Callable[..., Any] | str

_OWN = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
_SHARED = ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT

# A tensor and a number: the codes stay and the scale changes, so the output needs no observer of its own.
_BY_TENSORS = {0: _OWN, 1: _SHARED, 2: _OWN}
_ARITHMETIC: tuple[Op, ...] = (operator.add, torch.add, operator.mul, torch.mul)
_RELUS: tuple[Op, ...] = (nn.ReLU, functional.relu, torch.relu)

_OWN_RANGE: tuple[Op, ...] = (
    nn.ELU,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.Dropout,
    nn.PReLU,
    functional.elu,
    functional.hardswish,
    functional.leaky_relu,
    functional.dropout,
)
_FUNCTIONAL_NORMS = {
    functional.group_norm: {"weight": 2, "bias": 3},
    functional.instance_norm: {"weight": 3, "bias": 4},
}

_SAME_RANGE: tuple[Op, ...] = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.Hardtanh,
    nn.Identity,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ReLU,
    nn.ReLU6,
    torch.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
    functional.adaptive_avg_pool3d,
    functional.hardtanh,
    functional.hardtanh_,
    functional.interpolate,
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
    functional.pixel_shuffle,
    functional.pixel_unshuffle,
    functional.relu,
    functional.relu6,
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
    torch.clamp,
    torch.flatten,
    torch.mean,
    torch.narrow,
    torch.repeat_interleave,
    torch.transpose,
    torch.squeeze,
    torch.stack,
    torch.unsqueeze,
    operator.floordiv,
    "contiguous",
    "clamp",
    "detach",
    "detach_",
    "mean",
    "permute",
    "repeat",
    "repeat_interleave",
    "reshape",
    "resize_",
    "relu",
    "relu_",
    "squeeze",
    "squeeze_",
    "transpose",
    "unsqueeze",
    "unsqueeze_",
    "view",
)


def of_each(ops: Sequence[Any], observation: ObservationType, dtypes: DTypes) -> list[BackendPatternConfig]:
    """Return one pattern for each operator, observed alike."""
    return [BackendPatternConfig(op).set_observation_type(observation).set_dtype_configs(dtypes) for op in ops]


def binary(ops: Sequence[Op], dtypes: DTypes) -> list[BackendPatternConfig]:
    """Operators of two tensors, or of a tensor and a number, with relu."""
    made = of_each([pattern for op in ops for pattern in (*((op, relu) for relu in _RELUS), op)], _OWN, dtypes)
    for config in made:
        config._set_num_tensor_args_to_observation_type(dict(_BY_TENSORS))
    return made


def arithmetic(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Addition and multiplication, of tensors or of a tensor and a number, with relu; matrix products."""
    return binary(_ARITHMETIC, dtypes) + of_each((torch.matmul,), _OWN, dtypes)


def concatenations(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Concatenation: all inputs and the output have the same parameters."""
    return of_each((torch.cat,), _SHARED, dtypes)


def own_range(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Operators whose output has a range of its own."""
    norms = of_each(tuple(_FUNCTIONAL_NORMS), _OWN, dtypes)
    for config, inputs in zip(norms, _FUNCTIONAL_NORMS.values(), strict=True):
        config._set_input_type_to_index(dict(inputs))
    return of_each(_OWN_RANGE, _OWN, dtypes) + norms


def fixed_range(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Operators whose kernels have the output's scale and zero point built in: sigmoid, softmax, tanh."""
    return [
        BackendPatternConfig(op).set_dtype_configs([with_fixed_range(dtype_config, op) for dtype_config in dtypes])
        for op in FIXED_RANGE_OBSERVERS
    ]


def same_range(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Operators whose output has the parameters of the input."""
    return of_each(_SAME_RANGE, _SHARED, dtypes)


def not_observed(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Questions about a tensor, whose answer is none."""
    return of_each(("shape", "size"), ObservationType.INPUT_OUTPUT_NOT_OBSERVED, dtypes)
