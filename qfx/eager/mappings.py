"""Which class replaces which: the tables of eager mode, and questions to them.

Every function returns a copy, so a table changes only where its name is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.eager.errors import NoCounterpartError
from qfx.fake_quantize import (
    default_fixed_qparams_range_0to1_fake_quant,
    default_fixed_qparams_range_neg1to1_fake_quant,
)
from qfx.nn import intrinsic as nni
from qfx.nn import qat as nnqat
from qfx.nn import quantizable as nnqa
from qfx.nn import quantized as nnq
from qfx.nn.intrinsic import qat as nniqat
from qfx.nn.intrinsic import quantized as nniq
from qfx.nn.intrinsic.quantized import dynamic as nniqd
from qfx.nn.quantized import dynamic as nnqd
from qfx.nn.quantized import reference as nnqr
from qfx.nn.sparse import quantized as nnsq
from qfx.nn.stubs import DeQuantStub, QuantStub

Table: TypeAlias = dict[Any, Any]

DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS: Table = {
    QuantStub: nnq.Quantize,
    DeQuantStub: nnq.DeQuantize,
    nn.Linear: nnqr.Linear,
    nn.Conv1d: nnqr.Conv1d,
    nn.Conv2d: nnqr.Conv2d,
    nn.Conv3d: nnqr.Conv3d,
    nn.ConvTranspose1d: nnqr.ConvTranspose1d,
    nn.ConvTranspose2d: nnqr.ConvTranspose2d,
    nn.ConvTranspose3d: nnqr.ConvTranspose3d,
    nn.Embedding: nnqr.Embedding,
    nn.EmbeddingBag: nnqr.EmbeddingBag,
    nn.GRUCell: nnqr.GRUCell,
    nn.LSTMCell: nnqr.LSTMCell,
    nn.RNNCell: nnqr.RNNCell,
    nn.LSTM: nnqr.LSTM,
}
"""Float class to the reference class that computes in float on a quantized weight."""

DEFAULT_STATIC_QUANT_MODULE_MAPPINGS: Table = {
    QuantStub: nnq.Quantize,
    DeQuantStub: nnq.DeQuantize,
    nn.BatchNorm2d: nnq.BatchNorm2d,
    nn.BatchNorm3d: nnq.BatchNorm3d,
    nn.Dropout: nnq.Dropout,
    nn.Conv1d: nnq.Conv1d,
    nn.Conv2d: nnq.Conv2d,
    nn.Conv3d: nnq.Conv3d,
    nn.ConvTranspose1d: nnq.ConvTranspose1d,
    nn.ConvTranspose2d: nnq.ConvTranspose2d,
    nn.ConvTranspose3d: nnq.ConvTranspose3d,
    nn.ELU: nnq.ELU,
    nn.Embedding: nnq.Embedding,
    nn.EmbeddingBag: nnq.EmbeddingBag,
    nn.GroupNorm: nnq.GroupNorm,
    nn.Hardswish: nnq.Hardswish,
    nn.InstanceNorm1d: nnq.InstanceNorm1d,
    nn.InstanceNorm2d: nnq.InstanceNorm2d,
    nn.InstanceNorm3d: nnq.InstanceNorm3d,
    nn.LayerNorm: nnq.LayerNorm,
    nn.LeakyReLU: nnq.LeakyReLU,
    nn.modules.linear.NonDynamicallyQuantizableLinear: nnq.Linear,
    nn.Linear: nnq.Linear,
    nn.ReLU6: nnq.ReLU6,
    nn.PReLU: nnq.PReLU,
    nnq.FloatFunctional: nnq.QFunctional,
    # fused
    nni.BNReLU2d: nniq.BNReLU2d,
    nni.BNReLU3d: nniq.BNReLU3d,
    nni.ConvReLU1d: nniq.ConvReLU1d,
    nni.ConvReLU2d: nniq.ConvReLU2d,
    nni.ConvReLU3d: nniq.ConvReLU3d,
    nni.ConvAdd2d: nniq.ConvAdd2d,
    nni.ConvAddReLU2d: nniq.ConvAddReLU2d,
    nni.LinearReLU: nniq.LinearReLU,
    nni.LinearLeakyReLU: nniq.LinearLeakyReLU,
    nni.LinearTanh: nniq.LinearTanh,
    # trained
    nniqat.ConvBn1d: nnq.Conv1d,
    nniqat.ConvBn2d: nnq.Conv2d,
    nniqat.ConvBn3d: nnq.Conv3d,
    nniqat.ConvBnReLU1d: nniq.ConvReLU1d,
    nniqat.ConvBnReLU2d: nniq.ConvReLU2d,
    nniqat.ConvBnReLU3d: nniq.ConvReLU3d,
    nniqat.ConvReLU1d: nniq.ConvReLU1d,
    nniqat.ConvReLU2d: nniq.ConvReLU2d,
    nniqat.ConvReLU3d: nniq.ConvReLU3d,
    nniqat.LinearReLU: nniq.LinearReLU,
    nniqat.LinearBn1d: nnq.Linear,
    nnqat.Linear: nnq.Linear,
    nnqat.Conv1d: nnq.Conv1d,
    nnqat.Conv2d: nnq.Conv2d,
    nnqat.Conv3d: nnq.Conv3d,
}
"""Observed float or trained class to the quantized class."""

DEFAULT_QAT_MODULE_MAPPINGS: Table = {
    nn.Conv1d: nnqat.Conv1d,
    nn.Conv2d: nnqat.Conv2d,
    nn.Conv3d: nnqat.Conv3d,
    nn.Linear: nnqat.Linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: nnqat.Linear,
    # fused
    nni.ConvBn1d: nniqat.ConvBn1d,
    nni.ConvBn2d: nniqat.ConvBn2d,
    nni.ConvBn3d: nniqat.ConvBn3d,
    nni.ConvBnReLU1d: nniqat.ConvBnReLU1d,
    nni.ConvBnReLU2d: nniqat.ConvBnReLU2d,
    nni.ConvBnReLU3d: nniqat.ConvBnReLU3d,
    nni.ConvReLU1d: nniqat.ConvReLU1d,
    nni.ConvReLU2d: nniqat.ConvReLU2d,
    nni.ConvReLU3d: nniqat.ConvReLU3d,
    nni.LinearReLU: nniqat.LinearReLU,
    nni.LinearBn1d: nniqat.LinearBn1d,
}
"""Float class to the class that is trained with a rounded weight."""

DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS: Table = {
    nn.GRUCell: nnqd.GRUCell,
    nn.Linear: nnqd.Linear,
    nnqat.dynamic.Linear: nnqd.Linear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: nnqd.Linear,
    nn.LSTM: nnqd.LSTM,
    nn.GRU: nnqd.GRU,
    nn.LSTMCell: nnqd.LSTMCell,
    nn.RNNCell: nnqd.RNNCell,
    nni.LinearReLU: nniqd.LinearReLU,
    nn.EmbeddingBag: nnq.EmbeddingBag,
    nn.Embedding: nnq.Embedding,
}
"""Float class to the class with quantized weights that takes and returns floats.

Convolutions have such classes too, but they lose too much to be the default.
"""

DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS: Table = {
    F.elu: torch.ops.quantized.elu,
    F.hardswish: torch.ops.quantized.hardswish,
    F.instance_norm: torch.ops.quantized.instance_norm,
    F.layer_norm: torch.ops.quantized.layer_norm,
    F.leaky_relu: torch.ops.quantized.leaky_relu,
    F.dropout: torch.ops.quantized.dropout,
}
"""Float function to the operator on quantized tensors."""

DEFAULT_MODULE_TO_ACT_POST_PROCESS: Table = {
    nn.Hardsigmoid: default_fixed_qparams_range_0to1_fake_quant,
    nn.Sigmoid: default_fixed_qparams_range_0to1_fake_quant,
    nn.Softmax: default_fixed_qparams_range_0to1_fake_quant,
    nn.Tanh: default_fixed_qparams_range_neg1to1_fake_quant,
}
"""Class with a known range of outputs to the fake-quantize of that range; used in training."""

DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS: Table = {nn.Linear: nnsq.Linear}
"""Float class to the quantized class that skips blocks of zeros."""

DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS: Table = {nn.Linear: nnsq.dynamic.Linear}
"""Float class to the dynamic class that skips blocks of zeros."""

CONTAINERS = {nn.Sequential}


def no_observer_set() -> set[Any]:
    """Classes that observe themselves inside and so get no observer of their output."""
    return {nnqa.LSTM, nnqa.MultiheadAttention}


def get_default_static_quant_module_mappings() -> Table:
    """Return the classes of static quantization: what ``convert`` uses."""
    return dict(DEFAULT_STATIC_QUANT_MODULE_MAPPINGS)


def get_default_static_quant_reference_module_mappings() -> Table:
    """Return the reference classes of static quantization: what ``convert(..., is_reference=True)`` uses."""
    return dict(DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS)


def get_embedding_static_quant_module_mappings() -> Table:
    """Return the classes of static quantization and of embeddings that were trained with a rounded table."""
    trained = {nnqat.EmbeddingBag: nnq.EmbeddingBag, nnqat.Embedding: nnq.Embedding}
    return DEFAULT_STATIC_QUANT_MODULE_MAPPINGS | trained


def get_default_static_sparse_quant_module_mappings() -> Table:
    """Return the sparse classes of static quantization."""
    return dict(DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS)


def get_default_qat_module_mappings() -> Table:
    """Return the classes of quantization-aware training: what ``prepare_qat`` uses."""
    return dict(DEFAULT_QAT_MODULE_MAPPINGS)


def get_embedding_qat_module_mappings() -> Table:
    """Return the classes of quantization-aware training with embeddings among them."""
    return DEFAULT_QAT_MODULE_MAPPINGS | {nn.EmbeddingBag: nnqat.EmbeddingBag, nn.Embedding: nnqat.Embedding}


def get_default_dynamic_quant_module_mappings() -> Table:
    """Return the classes of dynamic quantization: what ``quantize_dynamic`` uses."""
    return dict(DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS)


def get_default_dynamic_sparse_quant_module_mappings() -> Table:
    """Return the sparse classes of dynamic quantization."""
    return dict(DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS)


def get_default_float_to_quantized_operator_mappings() -> Table:
    """Return the operators on quantized tensors, by float function."""
    return dict(DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS)


_REPLACING: tuple[Table, ...] = (
    DEFAULT_STATIC_QUANT_MODULE_MAPPINGS,
    DEFAULT_QAT_MODULE_MAPPINGS,
    DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS,
)


def get_default_qconfig_propagation_list() -> set[Any]:
    """Return the classes ``prepare`` observes: all that have a quantized form, and ``nn.Sequential``."""
    return CONTAINERS.union(*_REPLACING)


def get_default_compare_output_module_list() -> set[Any]:
    """Return the classes whose outputs are worth comparing: all that have a quantized form, and these forms."""
    return get_default_qconfig_propagation_list().union(*(table.values() for table in _REPLACING))


def get_static_quant_module_class(
    float_module_class: Any,
    additional_static_quant_mapping: Mapping[Any, Any] | None = None,
    is_reference: bool = False,
) -> Any:
    """Return the statically quantized form of a float class.

    Args:
        float_module_class: the float class.
        additional_static_quant_mapping: rows that come before the default ones.
        is_reference: answer with the reference class.

    Raises:
        NoCounterpartError: it has none.

    Example:
        >>> get_static_quant_module_class(nn.Linear)
        <class 'qfx.nn.quantized.linear.Linear'>
    """
    default = DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS if is_reference else DEFAULT_STATIC_QUANT_MODULE_MAPPINGS
    return _quantized_form(float_module_class, default, additional_static_quant_mapping)


def get_dynamic_quant_module_class(
    float_module_class: Any, additional_dynamic_quant_mapping: Mapping[Any, Any] | None = None
) -> Any:
    """Return the dynamically quantized form of a float class.

    Args:
        float_module_class: the float class.
        additional_dynamic_quant_mapping: rows that come before the default ones.

    Raises:
        NoCounterpartError: it has none.
    """
    return _quantized_form(float_module_class, DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS, additional_dynamic_quant_mapping)


def _quantized_form(float_class: Any, default: Table, additional: Mapping[Any, Any] | None) -> Any:
    found = {**default, **(additional or {})}.get(float_class)
    if found is None:
        raise NoCounterpartError(
            f"Floating point module class {float_class} does not have a corresponding quantized module class; "
            "name one in the additional mapping"
        )
    return found


def get_quantized_operator(float_op: Any) -> Any:
    """Return the operator on quantized tensors for a float function.

    Raises:
        NoCounterpartError: it has none.

    Example:
        >>> get_quantized_operator(F.elu).__name__
        'elu'
    """
    found = DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS.get(float_op)
    if found is None:
        known = ", ".join(op.__name__ for op in DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS)
        raise NoCounterpartError(f"Operator {float_op} does not have corresponding quantized op; these have: {known}")
    return found


def known_range(module: nn.Module) -> Any:
    """The factory of the fake-quantize that goes with the known range of a module's outputs, or None."""
    return DEFAULT_MODULE_TO_ACT_POST_PROCESS.get(type_before_parametrizations(module))


def has_known_range(module: nn.Module) -> bool:
    """Whether a module gets that fake-quantize instead of what its configuration says: in training it does."""
    return module.training and type(module) in DEFAULT_MODULE_TO_ACT_POST_PROCESS
