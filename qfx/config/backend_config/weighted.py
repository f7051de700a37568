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
from qfx.nn import intrinsic
from qfx.nn.quantized import reference

DTypes = Sequence[DTypeConfig]
RELUS: tuple[Any, ...] = (nn.ReLU, functional.relu)


def config(pattern: Pattern, dtypes: DTypes) -> BackendPatternConfig:
    """Return a pattern whose output has an observer of its own."""
    return BackendPatternConfig(pattern).set_dtype_configs(dtypes)


def _rooted(
    pattern: Pattern, dtypes: DTypes, root: type[nn.Module], in_reference: type[nn.Module] | None
) -> BackendPatternConfig:
    made = config(pattern, dtypes).set_root_module(root)
    return made if in_reference is None else made.set_reference_quantized_module(in_reference)


def _fused(pattern: Pattern, dtypes: DTypes, into: type[nn.Module]) -> BackendPatternConfig:
    return config(pattern, dtypes).set_fused_module(into)


def _function(function: Callable[..., Any], dtypes: DTypes) -> BackendPatternConfig:
    return config(function, dtypes)._set_input_type_to_index({"weight": 1, "bias": 2})


@dataclass(frozen=True)
class _Conv:
    """What convolution is called in one number of dimensions."""

    module: type[nn.Module]
    function: Callable[..., Any]
    norm: type[nn.Module]
    relu_fused: type[nn.Module]
    norm_fused: type[nn.Module]
    norm_relu_fused: type[nn.Module]
    in_reference: type[nn.Module]
    transposed: type[nn.Module]
    transposed_function: Callable[..., Any]
    transposed_in_reference: type[nn.Module]


def _conv(dims: int) -> _Conv:
    return _Conv(
        module=getattr(nn, f"Conv{dims}d"),
        function=getattr(functional, f"conv{dims}d"),
        norm=getattr(nn, f"BatchNorm{dims}d"),
        relu_fused=getattr(intrinsic, f"ConvReLU{dims}d"),
        norm_fused=getattr(intrinsic, f"ConvBn{dims}d"),
        norm_relu_fused=getattr(intrinsic, f"ConvBnReLU{dims}d"),
        in_reference=getattr(reference, f"Conv{dims}d"),
        transposed=getattr(nn, f"ConvTranspose{dims}d"),
        transposed_function=getattr(functional, f"conv_transpose{dims}d"),
        transposed_in_reference=getattr(reference, f"ConvTranspose{dims}d"),
    )


def convolutions(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Convolution in one to three dimensions, plain and transposed, with batch norm and relu."""
    return [made for dims in (1, 2, 3) for made in _convolution(_conv(dims), dtypes)]


def _convolution(conv: _Conv, dtypes: DTypes) -> list[BackendPatternConfig]:
    norm_relu = [_fused((conv.module, conv.norm, relu), dtypes, conv.norm_relu_fused) for relu in RELUS]
    norm_relu[-1].set_root_module(conv.module)
    return [
        _rooted(conv.module, dtypes, conv.module, conv.in_reference),
        _function(conv.function, dtypes),
        *(_fused((conv.module, relu), dtypes, conv.relu_fused) for relu in RELUS),
        config(conv.relu_fused, dtypes),
        *(config((conv.function, relu), dtypes) for relu in RELUS),
        _fused((conv.module, conv.norm), dtypes, conv.norm_fused),
        *norm_relu,
        config(conv.norm_fused, dtypes),
        config(conv.norm_relu_fused, dtypes),
        _rooted(conv.transposed, dtypes, conv.transposed, conv.transposed_in_reference),
        _rooted((conv.transposed, conv.norm), dtypes, conv.transposed, conv.transposed_in_reference),
        _function(conv.transposed_function, dtypes),
    ]


def linears(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Linear, with batch norm or relu."""
    return [
        _rooted(nn.Linear, dtypes, nn.Linear, reference.Linear),
        _function(functional.linear, dtypes),
        *linear_then(RELUS, RELUS, intrinsic.LinearReLU, dtypes),
        _fused((nn.Linear, nn.BatchNorm1d), dtypes, intrinsic.LinearBn1d),
        _rooted(intrinsic.LinearBn1d, dtypes, nn.Linear, reference.Linear),
    ]


def linear_then(
    spellings: Sequence[Any], after_function: Sequence[Any], into: type[nn.Module], dtypes: DTypes
) -> list[BackendPatternConfig]:
    """Linear and one operator after it, fused into one module where linear is one."""
    return [
        *(_fused((nn.Linear, op), dtypes, into) for op in spellings),
        _rooted(into, dtypes, nn.Linear, reference.Linear),
        *(config((functional.linear, op), dtypes) for op in after_function),
    ]


def linears_onednn(dtypes: DTypes) -> list[BackendPatternConfig]:
    """What onednn fuses besides relu: linear with leaky relu or tanh."""
    leaky: tuple[Any, ...] = (nn.LeakyReLU, functional.leaky_relu)
    tanh: tuple[Any, ...] = (nn.Tanh, torch.tanh)
    return [
        *linear_then(leaky, leaky, intrinsic.LinearLeakyReLU, dtypes),
        _fused((nn.Linear, nn.BatchNorm1d, nn.LeakyReLU), dtypes, intrinsic.LinearLeakyReLU),
        *linear_then(tanh, tanh, intrinsic.LinearTanh, dtypes),
    ]


def convolution_additions(dtypes: DTypes) -> list[BackendPatternConfig]:
    """What onednn fuses besides relu: convolution, then the addition of another tensor, as fused modules."""
    return [
        _rooted(fused, dtypes, nn.Conv2d, reference.Conv2d) for fused in (intrinsic.ConvAdd2d, intrinsic.ConvAddReLU2d)
    ]


def batch_norms(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Batch norm that has no convolution to be folded into, with relu."""
    kinds = ((nn.BatchNorm2d, intrinsic.BNReLU2d), (nn.BatchNorm3d, intrinsic.BNReLU3d))
    made = []
    for norm, fused in kinds:
        made += [_fused((norm, relu), dtypes, fused) for relu in RELUS]
        made.append(config(norm, dtypes))
    return made + [config(fused, dtypes) for _, fused in kinds]


def layer_norms(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Layer norm."""
    function = config(functional.layer_norm, dtypes)._set_input_type_to_index({"weight": 2, "bias": 3})
    return [config(nn.LayerNorm, dtypes), function]


def recurrent(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Recurrent layers and cells."""
    return [
        _rooted(layer, dtypes, layer, getattr(reference, layer.__name__, None))
        for layer in (nn.GRUCell, nn.LSTMCell, nn.RNNCell, nn.LSTM, nn.GRU)
    ]


def embeddings(dtypes: DTypes) -> list[BackendPatternConfig]:
    """Embedding tables."""
    return [
        _rooted(nn.Embedding, dtypes, nn.Embedding, reference.Embedding),
        _rooted(nn.EmbeddingBag, dtypes, nn.EmbeddingBag, reference.EmbeddingBag),
    ]
