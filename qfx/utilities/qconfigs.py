"""What a QConfig asks for, in the words of the original: dtypes of activation and weight, kind of quantization."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.config import QuantType, observer_facts
from qfx.dtypes import FLOAT8_DTYPES
from qfx.errors import ConfigError

_BYTES = frozenset({torch.quint8, torch.qint8, torch.uint8, torch.int8})
_WORDS = frozenset({torch.qint32, torch.int32})
_CODES = _BYTES | _WORDS | FLOAT8_DTYPES | {torch.int16, torch.quint4x2}


def _dtype(qconfig: Any, role: str) -> Any:
    if qconfig is None:
        raise ConfigError(f"there is no QConfig to ask for the dtype of the {role}")
    return observer_facts(getattr(qconfig, role)).dtype


def activation_dtype(qconfig: Any) -> torch.dtype:
    """Return the dtype activations are quantized to, as given.

    Raises:
        ConfigError: there is no configuration (so for every function here), or a factory makes no observer.

    Example:
        >>> from qfx.config import default_qconfig
        >>> activation_dtype(default_qconfig), weight_dtype(default_qconfig)
        (torch.quint8, torch.qint8)
    """
    return _dtype(qconfig, "activation")  # type: ignore[no-any-return]


def weight_dtype(qconfig: Any) -> torch.dtype:
    """Return the dtype weights are quantized to, as given."""
    return _dtype(qconfig, "weight")  # type: ignore[no-any-return]


def get_qconfig_dtypes(qconfig: Any) -> tuple[torch.dtype, torch.dtype, bool]:
    """Return the dtypes of activation and weight, and whether the activation's scale is chosen per input."""
    return activation_dtype(qconfig), weight_dtype(qconfig), activation_is_dynamically_quantized(qconfig)


def activation_is_dynamically_quantized(qconfig: Any) -> bool:
    """Whether the activation's scale is chosen anew for each input."""
    _dtype(qconfig, "activation")
    return observer_facts(qconfig.activation).is_dynamic


def activation_is_statically_quantized(qconfig: Any) -> bool:
    """Whether activations are quantized with a scale chosen beforehand; float16 counts."""
    wanted = activation_dtype(qconfig)
    static = wanted in _CODES - {torch.quint4x2} or wanted is torch.float16
    return static and not activation_is_dynamically_quantized(qconfig)


def activation_is_int8_quantized(qconfig: Any) -> bool:
    """Whether activations have 8-bit codes, signed or not."""
    return activation_dtype(qconfig) in _BYTES


def activation_is_int32_quantized(qconfig: Any) -> bool:
    """Whether activations have 32-bit codes."""
    return activation_dtype(qconfig) in _WORDS


def weight_is_quantized(qconfig: Any) -> bool:
    """Whether weights are quantized; float16 counts."""
    wanted = weight_dtype(qconfig)
    return wanted in _CODES - {torch.qint32} or wanted is torch.float16


def weight_is_statically_quantized(qconfig: Any) -> bool:
    """Whether weights have 8-bit codes."""
    return weight_dtype(qconfig) in _BYTES


def op_is_int8_dynamically_quantized(qconfig: Any) -> bool:
    """Whether unsigned 8-bit activations with a scale per input meet signed 8-bit weights."""
    activation, weight, dynamic = get_qconfig_dtypes(qconfig)
    return activation in (torch.quint8, torch.uint8) and weight in (torch.qint8, torch.int8) and dynamic


def get_quant_type(qconfig: Any) -> QuantType:
    """Return the kind of quantization a configuration asks for: dynamic, static or weights only.

    Raises:
        ConfigError: its dtypes make no kind, such as float weights.

    Example:
        >>> from qfx.config import default_dynamic_qconfig
        >>> get_quant_type(default_dynamic_qconfig)
        <QuantType.DYNAMIC: 0>
    """
    activation, weight, dynamic = get_qconfig_dtypes(qconfig)
    if weight in _CODES:
        if dynamic:
            return QuantType.DYNAMIC
        return QuantType.STATIC if activation in _CODES else QuantType.WEIGHT_ONLY
    if weight is torch.float16:
        if dynamic:
            return QuantType.DYNAMIC
        if activation is torch.float16:
            return QuantType.STATIC
    raise ConfigError(f"activations as {activation} and weights as {weight} make no kind of quantization")


def get_swapped_custom_module_class(
    custom_module: nn.Module, custom_module_class_mapping: dict[Any, dict[type, type]], qconfig: Any
) -> type:
    """Return the class that takes the place of a custom module.

    Args:
        custom_module: a float module, or an observed one.
        custom_module_class_mapping: kind of quantization -> class -> class that replaces it
            (``PrepareCustomConfig.float_to_observed_mapping``).
        qconfig: its configuration, which tells the kind.

    Raises:
        ConfigError: nothing replaces its class.
    """
    kind = get_quant_type(qconfig)
    classes = custom_module_class_mapping.get(kind, {})
    if type(custom_module) not in classes:
        known = ", ".join(cls.__name__ for cls in classes) or "no class"
        raise ConfigError(
            f"nothing replaces {type(custom_module).__name__} for {kind.key} quantization; the mapping has {known}"
        )
    return classes[type(custom_module)]
