"""The dtypes PyTorch's quantized kernels take, by kind of operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from qfx.config.backend_config.dtype_config import DTypeConfig, DTypeWithConstraints
from qfx.config.fixed_range import FIXED_RANGE_OBSERVERS
from qfx.config.observer_facts import observer_facts

weighted_int8 = DTypeConfig(
    input_dtype=torch.quint8, output_dtype=torch.quint8, weight_dtype=torch.qint8, bias_dtype=torch.float
)
"""Convolution and linear."""

default_op_quint8 = DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8)
"""Operators without a weight, or whose weight stays float."""

default_op_fp16 = DTypeConfig(
    input_dtype=torch.float16, output_dtype=torch.float16, weight_dtype=torch.float16, bias_dtype=torch.float16
)
"""Float16 everywhere."""

layer_norm_int8 = DTypeConfig(
    input_dtype=torch.quint8, output_dtype=torch.quint8, weight_dtype=torch.float, bias_dtype=torch.float
)
"""Layer norm: integer activations, float weight and bias."""

dynamic_int8 = DTypeConfig(
    input_dtype=torch.quint8,
    output_dtype=torch.float,
    weight_dtype=torch.qint8,
    bias_dtype=torch.float,
    is_dynamic=True,
)
"""Scale of the input chosen per call, integer weight, float output."""

dynamic_float16 = DTypeConfig(
    input_dtype=torch.float16,
    output_dtype=torch.float,
    weight_dtype=torch.float16,
    bias_dtype=torch.float,
    is_dynamic=True,
)
"""Weights kept as float16."""

weight_only_quint8 = DTypeConfig(input_dtype=torch.float, output_dtype=torch.float, weight_dtype=torch.quint8)
"""Embeddings with 8-bit tables."""

weight_only_quint4x2 = DTypeConfig(input_dtype=torch.float, output_dtype=torch.float, weight_dtype=torch.quint4x2)
"""Embeddings with 4-bit tables."""

weight_only_qint8 = DTypeConfig(input_dtype=torch.float, output_dtype=torch.float, weight_dtype=torch.qint8)
"""Embeddings with signed 8-bit tables."""

# XNNPACK's symmetric kernels: signed codes, weights without -128, scales that are not too small.
_SMALLEST_SCALE = 2**-12
_signed = DTypeWithConstraints(dtype=torch.qint8, scale_min_lower_bound=_SMALLEST_SCALE)
weighted_qint8_symmetric = DTypeConfig(
    input_dtype=_signed,
    output_dtype=_signed,
    weight_dtype=replace(_signed, quant_min_lower_bound=-127, quant_max_upper_bound=127),
    bias_dtype=torch.float,
)
"""XNNPACK: convolution and linear on signed activations."""

default_op_qint8_symmetric = DTypeConfig(input_dtype=_signed, output_dtype=_signed)
"""XNNPACK: operators without a weight on signed activations."""

dynamic_qint8_symmetric = DTypeConfig(
    input_dtype=_signed,
    output_dtype=torch.float,
    weight_dtype=weighted_qint8_symmetric.weight_dtype_with_constraints,
    bias_dtype=torch.float,
    is_dynamic=True,
)
"""XNNPACK: signed activations with a scale chosen per call."""

weighted_qint8 = DTypeConfig(
    input_dtype=torch.qint8, output_dtype=torch.qint8, weight_dtype=torch.qint8, bias_dtype=torch.float
)
"""TensorRT: everything signed."""

default_op_qint8 = DTypeConfig(input_dtype=torch.qint8, output_dtype=torch.qint8)
"""TensorRT: operators without a weight."""


def with_fixed_range(dtype_config: DTypeConfig, op: Callable[..., Any] | str) -> DTypeConfig:
    """Return ``dtype_config`` with the scale and zero point an operator's kernels have built in.

    Signed activations are left as they are: kernels for them have other constants, which nothing here names.
    """
    if dtype_config.input_dtype != torch.quint8:
        return dtype_config
    facts = observer_facts(FIXED_RANGE_OBSERVERS[op])
    built_in = DTypeWithConstraints(
        dtype=torch.quint8,
        quant_min_lower_bound=facts.quant_min,
        quant_max_upper_bound=facts.quant_max,
        scale_exact_match=facts.scale,
        zero_point_exact_match=facts.zero_point,
    )
    return DTypeConfig(
        input_dtype=built_in,
        output_dtype=built_in,
        weight_dtype=dtype_config.weight_dtype_with_constraints,
        bias_dtype=dtype_config.bias_dtype,
        is_dynamic=dtype_config.is_dynamic,
    )
