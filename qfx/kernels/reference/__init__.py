"""Exact integer references of torch's quantized kernels: pure functions from codes and parameters to codes.

Inputs are plain integer tensors; scales and zero points come as ``QParams``; sums are exact (float64 adds integers
below 2**53 without error). Where engines or loops round differently, a parameter (or the memory format of the input)
says whose rounding to make. Everything here is checked for equality with torch's kernels, not for closeness.

Example:
    >>> import torch
    >>> from qfx.kernels import reference
    >>> from qfx.qparams import QParams
    >>> q = QParams(0.5, 10, dtype=torch.quint8)
    >>> reference.relu(torch.tensor([3, 10, 40], dtype=torch.uint8), q)
    tensor([10, 10, 40], dtype=torch.uint8)
"""

from __future__ import annotations

from qfx.kernels.reference.activations import (
    SIGMOID_OUT,
    TANH_OUT,
    clamp,
    code_of,
    elu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    prelu,
    relu,
    sigmoid,
    tanh,
)
from qfx.kernels.reference.arithmetic import (
    ENGINES,
    Engine,
    onednn_here,
    onednn_roundings_here,
    requantize,
    requantize_matmul,
)
from qfx.kernels.reference.dynamic import dynamic_qparams, linear_dynamic
from qfx.kernels.reference.elementwise import add, add_scalar, cat, mul, mul_scalar
from qfx.kernels.reference.matmul import conv, linear
from qfx.kernels.reference.norms import batch_norm, instance_norm, layer_norm, pad, roll
from qfx.kernels.reference.overflow import SAFE_CODE, linear_sums_16bit, overflow_risk
from qfx.kernels.reference.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    interpolate_bilinear,
    interpolate_nearest,
    max_pool,
    mean,
)

__all__ = [
    "ENGINES",
    "SAFE_CODE",
    "SIGMOID_OUT",
    "TANH_OUT",
    "Engine",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "add_scalar",
    "avg_pool",
    "batch_norm",
    "cat",
    "clamp",
    "code_of",
    "conv",
    "dynamic_qparams",
    "elu",
    "hardsigmoid",
    "hardswish",
    "instance_norm",
    "interpolate_bilinear",
    "interpolate_nearest",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_dynamic",
    "linear_sums_16bit",
    "max_pool",
    "mean",
    "mul",
    "mul_scalar",
    "onednn_here",
    "onednn_roundings_here",
    "overflow_risk",
    "pad",
    "prelu",
    "relu",
    "requantize",
    "requantize_matmul",
    "roll",
    "sigmoid",
    "tanh",
]
