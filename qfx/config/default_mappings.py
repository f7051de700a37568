"""Default mappings: the configuration of a backend, and of the operators that need another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn import functional

from qfx.config.default_qconfigs import (
    check_backend,
    default_quint8_weight_qconfig,
    default_reuse_input_qconfig,
    default_symmetric_qnnpack_qconfig,
    get_default_qconfig,
)
from qfx.config.fixed_range import FIXED_RANGE_OBSERVERS
from qfx.config.qat_qconfigs import default_symmetric_qnnpack_qat_qconfig, get_default_qat_qconfig
from qfx.config.qconfig import QConfig
from qfx.config.qconfig_mapping import ObjectType, QConfigMapping
from qfx.fake_quantize import FixedQParamsFakeQuantize, default_weight_fake_quant
from qfx.observers import default_placeholder_observer, default_weight_observer

_TRANSPOSED: tuple[ObjectType, ...] = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_LAYER_NORM: tuple[ObjectType, ...] = (functional.layer_norm, nn.LayerNorm)

# fbgemm packs no transposed convolution with a scale per channel.
_ONE_SCALE_WHEN_TRANSPOSED = ("fbgemm", "x86")


def _with_exceptions(
    general: QConfig, transposed: QConfig, weight: Any, fixed_range: Callable[[Any], Any]
) -> QConfigMapping:
    """`weight` goes with operators of a fixed range, whose activation `fixed_range` makes of the observer."""
    mapping = QConfigMapping().set_global(general).set_object_type("reshape", default_reuse_input_qconfig)
    for op in _TRANSPOSED:
        mapping.set_object_type(op, transposed)
    # Layer norm takes its weight as float; PReLU as quint8.
    for op in _LAYER_NORM:
        mapping.set_object_type(op, QConfig(activation=general.activation, weight=default_placeholder_observer))
    mapping.set_object_type(nn.PReLU, default_quint8_weight_qconfig)
    fixed = {made: QConfig(activation=fixed_range(made), weight=weight) for made in set(FIXED_RANGE_OBSERVERS.values())}
    for op, made in FIXED_RANGE_OBSERVERS.items():
        mapping.set_object_type(op, fixed[made])
    return mapping


def get_default_qconfig_mapping(backend: str = "x86", version: int = 0) -> QConfigMapping:
    """Return a mapping that quantizes everything a backend can, with suitable observers.

    The global entry is ``get_default_qconfig(backend, version)``; operators with a range known beforehand (sigmoid,
    softmax, tanh), transposed convolutions, layer norm, PReLU and reshape have entries of their own. The mapping is
    new at each call, so it may be changed.

    Args:
        backend: ``"x86"`` (default), ``"fbgemm"``, ``"qnnpack"`` or ``"onednn"``.
        version: 0 is the only one.

    Raises:
        ConfigError: another backend or version.

    Example:
        >>> mapping = get_default_qconfig_mapping("x86").set_module_name("head", None)
    """
    check_backend(backend, version)
    general = get_default_qconfig(backend, version)
    narrow = QConfig(activation=general.activation, weight=default_weight_observer)
    transposed = narrow if backend in _ONE_SCALE_WHEN_TRANSPOSED else general
    return _with_exceptions(general, transposed, default_weight_observer, lambda observer: observer)


def get_default_qat_qconfig_mapping(backend: str = "x86", version: int = 1) -> QConfigMapping:
    """Return a mapping for quantization-aware training of everything a backend can quantize.

    As ``get_default_qconfig_mapping``, with ``get_default_qat_qconfig(backend, version)`` as the global entry.

    Args:
        backend: ``"x86"`` (default), ``"fbgemm"``, ``"qnnpack"`` or ``"onednn"``.
        version: 1 (default) for the fused kernel, 0 for ``FakeQuantize``.

    Raises:
        ConfigError: another backend or version.
    """
    general = get_default_qat_qconfig(backend, version)
    narrow = QConfig(activation=general.activation, weight=default_weight_fake_quant)
    transposed = narrow if backend in _ONE_SCALE_WHEN_TRANSPOSED else general
    return _with_exceptions(
        general,
        transposed,
        default_weight_fake_quant,
        lambda observer: FixedQParamsFakeQuantize.with_args(observer=observer),
    )


def get_default_qat_qconfig_dict(backend: str = "x86", version: int = 1) -> dict[str, Any]:
    """Return ``get_default_qat_qconfig_mapping(backend, version)`` as a dictionary."""
    return get_default_qat_qconfig_mapping(backend, version).to_dict()


def get_default_qconfig_dict(backend: str = "x86", version: int = 0) -> dict[str, Any]:
    """Return ``get_default_qconfig_mapping(backend, version)`` as a dictionary."""
    return get_default_qconfig_mapping(backend, version).to_dict()


def default_mapping(is_qat: bool, backend: str, version: int) -> QConfigMapping:
    """Return the default mapping of a backend, for training or not."""
    return (get_default_qat_qconfig_mapping if is_qat else get_default_qconfig_mapping)(backend, version)


def mapping_with_default(is_qat: bool, backend: str, default_qconfig: QConfig) -> QConfigMapping:
    """Return the default mapping of a backend with another configuration for all but operators of a fixed range."""
    mapping = (get_default_qat_qconfig_mapping if is_qat else get_default_qconfig_mapping)(backend)
    mapping.set_global(default_qconfig)
    for op in mapping.object_type_qconfigs:
        if op not in FIXED_RANGE_OBSERVERS:
            mapping.set_object_type(op, default_qconfig)
    return mapping


def symmetric_qnnpack_mapping() -> QConfigMapping:
    """Return the default mapping for XNNPACK's signed kernels."""
    return mapping_with_default(False, "qnnpack", default_symmetric_qnnpack_qconfig)


def symmetric_qnnpack_qat_mapping() -> QConfigMapping:
    """Return the default mapping for training towards XNNPACK's signed kernels."""
    return mapping_with_default(True, "qnnpack", default_symmetric_qnnpack_qat_qconfig)


DEFAULT_OBJECT_TYPES: frozenset[ObjectType] = frozenset(get_default_qconfig_mapping().object_type_qconfigs)
"""Object types the default mappings name: that a model has none of them is no mistake of its user."""
