"""Quantization of TorchScript modules, by the passes compiled into PyTorch."""

from __future__ import annotations

from qfx.jit.flows import quantize_dynamic_jit, quantize_jit
from qfx.jit.steps import (
    convert_dynamic_jit,
    convert_jit,
    fuse_conv_bn_jit,
    prepare_dynamic_jit,
    prepare_jit,
    script_qconfig,
    script_qconfig_dict,
)

__all__ = [
    "convert_dynamic_jit",
    "convert_jit",
    "fuse_conv_bn_jit",
    "prepare_dynamic_jit",
    "prepare_jit",
    "quantize_dynamic_jit",
    "quantize_jit",
    "script_qconfig",
    "script_qconfig_dict",
]
