"""Patterns of operators with a weight: convolution, linear, batch norm, embeddings, recurrent layers.

Every function takes dtype configurations and returns the patterns of one family with them, so a backend is a table of
families. Nothing is written once per dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qfx.config.backend_config.dtype_config import DTypeConfig
from qfx.config.backend_config.pattern_config import BackendPatternConfig, Pattern
from qfx.nn import intrinsic, qat
from qfx.nn.intrinsic import fusers
from qfx.nn.intrinsic import qat as intrinsic_qat
from qfx.nn.quantized import reference

DTypes = Sequence[DTypeConfig]
RELUS: tuple[Any, ...] = (nn.ReLU, functional.relu)


def config(pattern: Pattern, dtypes: DTypes) -> BackendPatternConfig:
    """Return a pattern whose output has an observer of its own."""
    return BackendPatternConfig(pattern).set_dtype_configs(dtypes)


def rooted(
    pattern: Pattern,
    dtypes: DTypes,
    root: type[nn.Module],
    in_reference: type[nn.Module],
    in_training: type[nn.Module] | None = None,
) -> BackendPatternConfig:
    """Return a pattern around a module with a weight: its class, its reference form, what replaces it in training."""
    made = config(pattern, dtypes).set_root_module(root)
    if in_training is not None:
        made.set_qat_module(in_training)
    return made.set_reference_quantized_module(in_reference)


def fused(
    pattern: Pattern, dtypes: DTypes, into: type[nn.Module], fuser: Callable[..., Any] | None = None
) -> BackendPatternConfig:
    """Return a pattern that becomes one module; by default a container of the two it is made of."""
    container: Any = into
    return config(pattern, dtypes).set_fused_module(into).set_fuser_method(fuser or fusers.pair(container))


def function(function: Callable[..., Any], dtypes: DTypes) -> BackendPatternConfig:
    """Return a function whose arguments 1 and 2 are weight and bias."""
    return config(function, dtypes)._set_input_type_to_index({"weight": 1, "bias": 2})


@dataclass(frozen=True)
class ConvNames:
    """What convolution is called in one number of dimensions."""

    module: type[nn.Module]
    function: Callable[..., Any]
    norm: type[nn.Module]
    relu_fused: type[nn.Module]
    norm_fused: type[nn.Module]
    norm_relu_fused: type[nn.Module]
    in_training: type[nn.Module]
    relu_in_training: type[nn.Module]
    norm_in_training: type[nn.Module]
    norm_relu_in_training: type[nn.Module]
    in_reference: type[nn.Module]
    transposed: type[nn.Module]
    transposed_function: Callable[..., Any]
    transposed_in_reference: type[nn.Module]


def conv_names(dims: int) -> ConvNames:
    """Return what convolution is called in so many dimensions."""
    return ConvNames(
        module=getattr(nn, f"Conv{dims}d"),
        function=getattr(functional, f"conv{dims}d"),
        norm=getattr(nn, f"BatchNorm{dims}d"),
        relu_fused=getattr(intrinsic, f"ConvReLU{dims}d"),
        norm_fused=getattr(intrinsic, f"ConvBn{dims}d"),
        norm_relu_fused=getattr(intrinsic, f"ConvBnReLU{dims}d"),
        in_training=getattr(qat, f"Conv{dims}d"),
        relu_in_training=getattr(intrinsic_qat, f"ConvReLU{dims}d"),
        norm_in_training=getattr(intrinsic_qat, f"ConvBn{dims}d"),
        norm_relu_in_training=getattr(intrinsic_qat, f"ConvBnReLU{dims}d"),
        in_reference=getattr(reference, f"Conv{dims}d"),
        transposed=getattr(nn, f"ConvTranspose{dims}d"),
        transposed_function=getattr(functional, f"conv_transpose{dims}d"),
        transposed_in_reference=getattr(reference, f"ConvTranspose{dims}d"),
    )


def convolutions(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Convolution in one to three dimensions, plain and transposed, with batch norm and relu."""
    return [
        made
        for dims in (1, 2, 3)
        for made in (*convolution(conv_names(dims), dtypes), *_transposed(conv_names(dims), dtypes))
    ]


def convolution(conv: ConvNames, dtypes: DTypes) -> list[BackendPatternConfig]:
    """Convolution in one number of dimensions, with batch norm and relu."""
    norm_relu = [
        fused((conv.module, conv.norm, relu), dtypes, conv.norm_relu_fused, fusers.fuse_conv_bn_relu) for relu in RELUS
    ]
    norm_relu[-1].set_root_module(conv.module)
    return [
        rooted(conv.module, dtypes, conv.module, conv.in_reference, conv.in_training),
        rooted(conv.in_training, dtypes, conv.module, conv.in_reference),
        function(conv.function, dtypes),
        *(fused((conv.module, relu), dtypes, conv.relu_fused) for relu in RELUS),
        config(conv.relu_fused, dtypes).set_qat_module(conv.relu_in_training),
        rooted(conv.relu_in_training, dtypes, conv.module, conv.in_reference),
        *(config((conv.function, relu), dtypes) for relu in RELUS),
        fused((conv.module, conv.norm), dtypes, conv.norm_fused, fusers.fuse_conv_bn),
        *norm_relu,
        config(conv.norm_fused, dtypes).set_qat_module(conv.norm_in_training),
        config(conv.norm_relu_fused, dtypes).set_qat_module(conv.norm_relu_in_training),
        rooted(conv.norm_in_training, dtypes, conv.module, conv.in_reference),
        rooted(conv.norm_relu_in_training, dtypes, conv.module, conv.in_reference),
    ]


def _transposed(conv: ConvNames, dtypes: DTypes) -> list[BackendPatternConfig]:
    with_norm = rooted((conv.transposed, conv.norm), dtypes, conv.transposed, conv.transposed_in_reference)
    return [
        rooted(conv.transposed, dtypes, conv.transposed, conv.transposed_in_reference),
        with_norm.set_fuser_method(fusers.fuse_convtranspose_bn),
        function(conv.transposed_function, dtypes),
    ]


def linear_alone(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Linear: the module, its form for training, the function."""
    return [
        rooted(nn.Linear, dtypes, nn.Linear, reference.Linear, qat.Linear),
        rooted(qat.Linear, dtypes, nn.Linear, reference.Linear),
        function(functional.linear, dtypes),
    ]


def linears(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Linear, with batch norm or relu."""
    norm, norm_in_training = intrinsic.LinearBn1d, intrinsic_qat.LinearBn1d
    return [
        *linear_alone(dtypes),
        *linear_then(RELUS, intrinsic.LinearReLU, dtypes, intrinsic_qat.LinearReLU),
        fused((nn.Linear, nn.BatchNorm1d), dtypes, norm, fusers.fuse_linear_bn),
        rooted(norm, dtypes, nn.Linear, reference.Linear, norm_in_training),
        rooted(norm_in_training, dtypes, nn.Linear, reference.Linear),
    ]


def linear_then(
    spellings: Sequence[Any],
    into: type[nn.Module],
    dtypes: DTypes,
    in_training: type[nn.Module] | None = None,
) -> list[BackendPatternConfig]:
    """Linear and one operator after it, fused into one module where linear is one."""
    trained = [] if in_training is None else [rooted(in_training, dtypes, nn.Linear, reference.Linear)]
    return [
        *(fused((nn.Linear, op), dtypes, into) for op in spellings),
        rooted(into, dtypes, nn.Linear, reference.Linear, in_training),
        *trained,
        *(config((functional.linear, op), dtypes) for op in spellings),
    ]


def linears_onednn(dtypes: DTypes) -> list[BackendPatternConfig]:
    """What onednn fuses besides relu: linear with leaky relu or tanh."""
    leaky, fused_leaky = (nn.LeakyReLU, functional.leaky_relu), intrinsic.LinearLeakyReLU
    with_norm = (nn.Linear, nn.BatchNorm1d, nn.LeakyReLU)
    return [
        *linear_then(leaky, fused_leaky, dtypes),
        fused(with_norm, dtypes, fused_leaky, fusers.fuse_linear_bn_leaky_relu),
        *linear_then((nn.Tanh, torch.tanh), intrinsic.LinearTanh, dtypes),
    ]


def batch_norms(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Batch norm that has no convolution to be folded into, with relu."""
    kinds = ((nn.BatchNorm2d, intrinsic.BNReLU2d), (nn.BatchNorm3d, intrinsic.BNReLU3d))
    made = []
    for norm, into in kinds:
        made += [fused((norm, relu), dtypes, into) for relu in RELUS]
        made.append(config(norm, dtypes))
    return made + [config(into, dtypes) for _, into in kinds]


def layer_norms(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Layer norm."""
    as_function = config(functional.layer_norm, dtypes)._set_input_type_to_index({"weight": 2, "bias": 3})
    return [config(nn.LayerNorm, dtypes), as_function]


def recurrent(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Recurrent layers and cells."""
    return [
        rooted(layer, dtypes, layer, getattr(reference, layer.__name__))
        for layer in (nn.GRUCell, nn.LSTMCell, nn.RNNCell, nn.LSTM, nn.GRU)
    ]


def embeddings(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Embedding tables, and their forms for training."""
    return [
        made
        for table in (nn.Embedding, nn.EmbeddingBag)
        for in_reference, in_training in ((getattr(reference, table.__name__), getattr(qat, table.__name__)),)
        for made in (
            rooted(table, dtypes, table, in_reference, in_training),
            rooted(in_training, dtypes, table, in_reference),
        )
    ]
