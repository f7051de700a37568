"""Input-weight equalization by its old names (``fx._equalize``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from qfx.api.equalized import equalized as _convert_equalization_ref
from qfx.config.qconfig_mapping import MODULE_NAME_KEY
from qfx.nn.intrinsic import _FusedModule
from qfx.observers.equalization import (
    EqualizationQConfig,
    calculate_equalization_scale,
    default_equalization_qconfig,
    input_equalization_observer,
    weight_equalization_observer,
)
from qfx.observers.equalization import InputEqualizationObserver as _InputEqualizationObserver
from qfx.observers.equalization import WeightEqualizationObserver as _WeightEqualizationObserver
from qfx.passes.equalizable import FUSED, LAYERS

CUSTOM_MODULE_SUPP_LIST: list[Any] = []
_FUNCTIONS = (F.linear, F.conv1d, F.conv2d, F.conv3d)


def reshape_scale(scale: torch.Tensor, axis: int, input: torch.Tensor) -> torch.Tensor:
    """A scale in the shape that multiplies `input` along an axis."""
    return scale.reshape([-1 if each == axis else 1 for each in range(input.dim())])


def fused_module_supports_equalization(module: Any) -> bool:
    """Whether a layer with a relu can be equalized."""
    return type(module) in FUSED


def nn_module_supports_equalization(module: Any) -> bool:
    """Whether a layer of ``torch.nn`` can be equalized."""
    return type(module) in LAYERS


def custom_module_supports_equalization(module: Any) -> bool:
    """Whether a class was added to ``CUSTOM_MODULE_SUPP_LIST``."""
    return type(module) in CUSTOM_MODULE_SUPP_LIST


def node_supports_equalization(node: Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node calls a layer that can be equalized, as a module or a function."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return (
            nn_module_supports_equalization(module)
            or fused_module_supports_equalization(module)
            or custom_module_supports_equalization(module)
        )
    return node.op == "call_function" and node.target in _FUNCTIONS


def is_equalization_observer(observer: Any) -> bool:
    """Whether it watches the columns of an input or a weight."""
    return isinstance(observer, _InputEqualizationObserver | _WeightEqualizationObserver)


def get_equalization_qconfig_dict(layer_sqnr_dict: dict[str, float], num_layers_to_equalize: int) -> dict[str, Any]:
    """A mapping, as a dictionary, that equalizes the layers that quantization hurts most.

    Args:
        layer_sqnr_dict: name of a layer -> signal to noise of its quantized form, in dB.
        num_layers_to_equalize: how many.
    """
    worst = sorted(layer_sqnr_dict.items(), key=lambda item: item[1])[:num_layers_to_equalize]
    return {MODULE_NAME_KEY: [(name, default_equalization_qconfig) for name, _ in worst]}


__all__ = [
    "CUSTOM_MODULE_SUPP_LIST",
    "EqualizationQConfig",
    "_FusedModule",
    "_InputEqualizationObserver",
    "_WeightEqualizationObserver",
    "_convert_equalization_ref",
    "calculate_equalization_scale",
    "custom_module_supports_equalization",
    "default_equalization_qconfig",
    "fused_module_supports_equalization",
    "get_equalization_qconfig_dict",
    "input_equalization_observer",
    "is_equalization_observer",
    "nn_module_supports_equalization",
    "node_supports_equalization",
    "reshape_scale",
    "weight_equalization_observer",
]
