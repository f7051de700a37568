"""Module spellings: classes of ``torch.nn`` that spell an op, their parameters and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from qfx import ops
from qfx.ops import Op
from qfx.spellings.spelling import Arguments, ModuleSpelling, Signature

_X = Signature.parse("input>x")
Adjust = Callable[[Any, Arguments], Arguments]


def _pairs(text: str) -> dict[str, str]:
    """``"weight>w stride"`` -> ``{"weight": "w", "stride": "stride"}``."""
    split = (part.partition(">") for part in text.split())
    return {attribute: canonical or attribute for attribute, _, canonical in split}


def module(
    cls: type,
    op: Op,
    params: str = "",
    attrs: str = "",
    *,
    call: Signature = _X,
    adjust: Adjust | None = None,
    **fixed: Any,
) -> ModuleSpelling:
    """A module spelling in compact form; other layers (``qfx.nn``) describe their classes with it too."""
    return ModuleSpelling(cls, op, call, _pairs(params), _pairs(attrs), fixed, adjust)


def _uses_batch_statistics(m: Any, found: Arguments) -> Arguments:
    # A batch norm without running statistics normalizes by the batch, in eval mode too.
    return found | {"training": bool(m.training or m.running_mean is None)}


def _weighted() -> Iterator[ModuleSpelling]:
    for n in (1, 2, 3):
        attrs = "stride padding dilation groups padding_mode"
        yield module(getattr(nn, f"Conv{n}d"), ops.REGISTRY[f"conv{n}d"], "weight>w bias>b", attrs)
        yield module(
            getattr(nn, f"ConvTranspose{n}d"),
            ops.REGISTRY[f"conv_transpose{n}d"],
            "weight>w bias>b",
            f"{attrs} output_padding",
            call=Signature.parse("input>x output_size=None"),
        )
    yield module(nn.Linear, ops.linear, "weight>w bias>b")
    yield module(nn.modules.linear.NonDynamicallyQuantizableLinear, ops.linear, "weight>w bias>b")
    yield module(nn.Bilinear, ops.bilinear, "weight>w bias>b", call=Signature.parse("input1>x input2>y"))
    yield module(nn.Embedding, ops.embedding, "weight>w", "padding_idx max_norm norm_type scale_grad_by_freq sparse")


def _norms() -> Iterator[ModuleSpelling]:
    for n in (1, 2, 3):
        yield module(
            getattr(nn, f"BatchNorm{n}d"),
            ops.batch_norm,
            "weight>gamma bias>beta running_mean>mean running_var>var",
            "momentum eps",
            adjust=_uses_batch_statistics,
        )
        yield module(
            getattr(nn, f"InstanceNorm{n}d"),
            ops.instance_norm,
            "weight>gamma bias>beta running_mean>mean running_var>var",
            "momentum eps",
            adjust=lambda m, found: found | {"use_input_stats": bool(m.training or not m.track_running_stats)},
        )
    yield module(nn.LayerNorm, ops.layer_norm, "weight>gamma bias>beta", "normalized_shape eps")
    yield module(nn.GroupNorm, ops.group_norm, "weight>gamma bias>beta", "num_groups eps")
    for cls in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        yield module(cls, ops.dropout, "", "p inplace training")


def _activations() -> Iterator[ModuleSpelling]:
    for cls, op, attrs in (
        (nn.ReLU, ops.relu, "inplace"),
        (nn.ReLU6, ops.relu6, "inplace"),
        (nn.Hardtanh, ops.hardtanh, "min_val max_val inplace"),
        (nn.Sigmoid, ops.sigmoid, ""),
        (nn.Tanh, ops.tanh, ""),
        (nn.Hardsigmoid, ops.hardsigmoid, "inplace"),
        (nn.Hardswish, ops.hardswish, "inplace"),
        (nn.ELU, ops.elu, "alpha inplace"),
        (nn.LeakyReLU, ops.leaky_relu, "negative_slope inplace"),
        (nn.GELU, ops.gelu, "approximate"),
        (nn.SiLU, ops.silu, "inplace"),
        (nn.Mish, ops.mish, "inplace"),
        (nn.Softmax, ops.softmax, "dim"),
        (nn.Softplus, ops.softplus, "beta threshold"),
        (nn.Softsign, ops.softsign, ""),
    ):
        yield module(cls, op, "", attrs)
    yield module(nn.PReLU, ops.prelu, "weight>w")


def _pools_and_shapes() -> Iterator[ModuleSpelling]:
    for n in (1, 2, 3):
        attrs = "kernel_size stride padding ceil_mode"
        yield module(
            getattr(nn, f"MaxPool{n}d"),
            ops.REGISTRY[f"max_pool{n}d"],
            "",
            f"{attrs} dilation return_indices",
        )
        divisor = " divisor_override" if n > 1 else ""
        yield module(
            getattr(nn, f"AvgPool{n}d"),
            ops.REGISTRY[f"avg_pool{n}d"],
            "",
            f"{attrs} count_include_pad{divisor}",
        )
        for kind, more in (("Avg", ""), ("Max", " return_indices")):
            op = ops.REGISTRY[f"adaptive_{kind.lower()}_pool{n}d"]
            yield module(getattr(nn, f"Adaptive{kind}Pool{n}d"), op, "", f"output_size{more}")
        for kind, mode in (
            ("Zero", "constant"),
            ("Constant", "constant"),
            ("Reflection", "reflect"),
            ("Replication", "replicate"),
        ):
            value = " value" if kind in ("Constant", "Zero") else ""
            yield module(getattr(nn, f"{kind}Pad{n}d"), ops.pad, "", f"padding>pad{value}", mode=mode)
    yield module(nn.Upsample, ops.interpolate, "", "size scale_factor mode align_corners")
    yield module(nn.UpsamplingNearest2d, ops.interpolate, "", "size scale_factor mode align_corners")
    yield module(nn.UpsamplingBilinear2d, ops.interpolate, "", "size scale_factor mode align_corners")
    yield module(nn.Identity, ops.identity)
    yield module(nn.Flatten, ops.flatten, "", "start_dim end_dim")
    yield module(nn.Unflatten, ops.unflatten, "", "dim unflattened_size>sizes")
    yield module(nn.PixelShuffle, ops.pixel_shuffle, "", "upscale_factor")
    yield module(nn.PixelUnshuffle, ops.pixel_unshuffle, "", "downscale_factor")
    yield module(nn.ChannelShuffle, ops.channel_shuffle, "", "groups")


def spellings() -> Iterator[ModuleSpelling]:
    """All module spellings of ``torch.nn``."""
    for family in (_weighted, _norms, _activations, _pools_and_shapes):
        yield from family()
