"""What backends outside PyTorch take: ExecuTorch and TensorRT. A model prepared for one is handed over as a reference
graph; no target here lowers it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qfx.config.backend_config import dtypes, unweighted, weighted
from qfx.config.backend_config.backend_config import BackendConfig
from qfx.config.backend_config.observation_type import ObservationType
from qfx.config.backend_config.pattern_config import BackendPatternConfig

_OWN = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
_SHARED = ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT

# XNNPACK's signed activations first, then unsigned ones.
_WEIGHTED = (dtypes.weighted_qint8_symmetric, dtypes.weighted_int8)
_PLAIN = (dtypes.default_op_qint8_symmetric, dtypes.default_op_quint8)
_BINARY = (dtypes.default_op_qint8_symmetric, dtypes.weighted_int8)
_DYNAMIC = (dtypes.dynamic_int8, dtypes.dynamic_qint8_symmetric, dtypes.dynamic_float16)

_EXECUTORCH_ARITHMETIC = (operator.add, torch.add, operator.sub, torch.sub, operator.mul, torch.mul)
_EXECUTORCH_SAME_RANGE: tuple[Any, ...] = (
    nn.Flatten,
    *(functional.adaptive_avg_pool2d, functional.elu, functional.hardtanh, functional.max_pool2d, functional.pad),
    *(functional.relu, functional.relu6, functional.leaky_relu, functional.leaky_relu_),
    *(nn.AdaptiveAvgPool2d, nn.ConstantPad2d, nn.ELU, nn.MaxPool2d, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU),
    *(torch.clamp, torch.flatten, torch.mean, torch.permute, torch.permute_copy, torch.squeeze),
    *("clamp", "mean", "permute", "reshape", "relu", "relu_", "squeeze", "squeeze_", "leaky_relu"),
)


def get_executorch_backend_config() -> BackendConfig:
    """Return what ExecuTorch's XNNPACK delegate takes.

    Example:
        >>> get_executorch_backend_config().name
        'executorch'
    """
    tables = weighted.embeddings((dtypes.weight_only_quint8,))
    as_function = weighted.config(functional.embedding, (dtypes.weight_only_quint8,))._set_input_type_to_index(
        {"weight": 1}
    )
    return (
        BackendConfig("executorch")
        .set_backend_pattern_configs(weighted.linear_alone((*_WEIGHTED, *_DYNAMIC)))
        .set_backend_pattern_configs(weighted.convolution(weighted.conv_names(2), _WEIGHTED))
        .set_backend_pattern_configs(unweighted.binary(_EXECUTORCH_ARITHMETIC, _BINARY))
        .set_backend_pattern_configs(unweighted.of_each(_EXECUTORCH_SAME_RANGE, _SHARED, _PLAIN))
        .set_backend_pattern_config(weighted.config(nn.BatchNorm2d, _PLAIN))
        .set_backend_pattern_configs(unweighted.of_each((torch.cat, torch.concat, torch.concatenate), _SHARED, _PLAIN))
        .set_backend_pattern_configs([*tables[:2], as_function, *tables[2:]])
    )


def get_tensorrt_backend_config() -> BackendConfig:
    """Return what TensorRT takes: signed 8-bit activations and weights.

    Example:
        >>> get_tensorrt_backend_config().configs[0].dtype_configs[0].input_dtype
        torch.qint8
    """
    full, plain = (dtypes.weighted_qint8,), (dtypes.default_op_qint8,)
    addmm = BackendPatternConfig(torch.addmm).set_observation_type(_OWN).set_dtype_configs(full)
    return (
        BackendConfig("tensorrt")
        .set_backend_pattern_configs(weighted.convolutions(full))
        .set_backend_pattern_config(addmm._set_input_type_to_index({"bias": 0, "input": 1, "weight": 2}))
        .set_backend_pattern_configs(unweighted.concatenations(plain))
        .set_backend_pattern_configs(weighted.linears(full))
        .set_backend_pattern_configs(unweighted.arithmetic(full))
        .set_backend_pattern_configs(unweighted.same_range(plain))
        .set_backend_pattern_configs(unweighted.not_observed(plain))
    )


def get_tensorrt_backend_config_dict() -> dict[str, Any]:
    """Return ``get_tensorrt_backend_config()`` as a dictionary."""
    return get_tensorrt_backend_config().to_dict()
