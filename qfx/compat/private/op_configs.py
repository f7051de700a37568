"""Families of patterns that backend configs are made of (``backend_config._common_operator_config_utils``).

Each takes a list of ``DTypeConfig`` and gives the patterns of a family with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn import functional

from qfx.config import BackendPatternConfig, DTypeConfig, DTypeWithConstraints
from qfx.config.backend_config import unweighted, weighted
from qfx.nn import intrinsic, qat
from qfx.nn.quantized import reference

_get_conv_configs = weighted.convolutions
_get_linear_configs = weighted.linears
_get_bn_configs = weighted.batch_norms
_get_ln_configs = weighted.layer_norms
_get_rnn_op_configs = weighted.recurrent
_get_embedding_op_configs = weighted.embeddings
_get_binary_op_configs = unweighted.arithmetic
_get_default_op_configs = unweighted.own_range
_get_fixed_qparams_op_configs = unweighted.fixed_range
_get_share_qparams_op_configs = unweighted.same_range
_get_tensor_info_op_configs = unweighted.not_observed


class _ConvMetadata(NamedTuple):
    """The classes and functions of convolution with as many dimensions."""

    root: Any
    transpose: Any
    bn: Any
    reference: Any
    transpose_reference: Any
    fused_conv_relu: Any
    fused_conv_bn: Any
    fused_conv_bn_relu: Any
    qat: Any
    relu_qat: Any
    bn_qat: Any
    bn_relu_qat: Any
    func: Any
    func_transpose: Any


def _conv_metadata(n: int) -> _ConvMetadata:
    homes = (
        (nn, "Conv{}d ConvTranspose{}d BatchNorm{}d"),
        (reference, "Conv{}d ConvTranspose{}d"),
        (intrinsic, "ConvReLU{}d ConvBn{}d ConvBnReLU{}d"),
        (qat, "Conv{}d"),
        (intrinsic.qat, "ConvReLU{}d ConvBn{}d ConvBnReLU{}d"),
        (functional, "conv{}d conv_transpose{}d"),
    )
    return _ConvMetadata(*(getattr(home, name.format(n)) for home, names in homes for name in names.split()))


_Conv1dMetadata, _Conv2dMetadata, _Conv3dMetadata = (_conv_metadata(n) for n in (1, 2, 3))


def _get_cat_config(dtype_configs: Sequence[DTypeConfig]) -> BackendPatternConfig:
    """Concatenation: all inputs and the output have the same parameters."""
    (found,) = unweighted.concatenations(dtype_configs)
    return found


def _add_fixed_qparams_to_dtype_configs(
    dtype_configs: Sequence[DTypeConfig], constraints: DTypeWithConstraints
) -> list[DTypeConfig]:
    """Give activations the constraints of kernels with a range built in, where they have the dtype of them."""
    return [
        DTypeConfig(
            input_dtype=constraints if each.input_dtype == constraints.dtype else each.input_dtype_with_constraints,
            output_dtype=constraints if each.output_dtype == constraints.dtype else each.output_dtype_with_constraints,
            weight_dtype=each.weight_dtype_with_constraints,
            bias_dtype=each.bias_dtype,
            is_dynamic=each.is_dynamic,
        )
        for each in dtype_configs
    ]
