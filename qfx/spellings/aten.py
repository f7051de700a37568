"""Aten spellings: what ``torch.export`` leaves in a graph. Signatures come from the operator schemas themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qfx import ops
from qfx.ops import Op
from qfx.spellings.spelling import (
    MISSING,
    Arguments,
    CallSpelling,
    Parameter,
    Signature,
    UnreadableCall,
    stride_of_pool,
)

Adjust = Callable[[Arguments], Arguments]

# Schema names that mean the same in every operator.
_COMMON = {"self": "x", "input": "x", "other": "y", "weight": "w", "bias": "b", "tensors": "xs"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}


def _overload(path: str) -> Any | None:
    """``"conv2d.default"`` -> ``torch.ops.aten.conv2d.default``, or None where this torch has no such overload."""
    name, _, overload = path.partition(".")
    packet = getattr(torch.ops.aten, name, None)
    return getattr(packet, overload or "default", None) if packet is not None else None


def _signature(overload: Any, renames: dict[str, str]) -> Signature:
    names = _COMMON | renames
    return Signature(
        tuple(
            Parameter(a.name, names.get(a.name, a.name), a.default_value if a.has_default_value() else MISSING)
            for a in overload._schema.arguments
        )
    )


def _aten(
    op: Op,
    paths: str,
    renames: str = "",
    *,
    drop: str = "",
    adjust: Adjust | None = None,
    primary: bool = False,
    **fixed: Any,
) -> Iterator[CallSpelling]:
    pairs = dict(part.split(">") for part in renames.split())
    dropped = set(drop.split())
    for path in paths.split():
        overload = _overload(path)
        if overload is None:
            continue
        inplace = overload._schema.is_mutable and path.split(".")[0].endswith("_")

        def last(found: Arguments) -> Arguments:
            kept = {name: value for name, value in found.items() if name not in dropped}
            return adjust(kept) if adjust is not None else kept

        yield CallSpelling(overload, op, _signature(overload, pairs), fixed, inplace, last, primary)


def _convolution(n: int, transposed: bool) -> Adjust:
    def adjust(found: Arguments) -> Arguments:
        if found.pop("transposed") is not transposed or len(found["stride"]) != n:
            raise UnreadableCall("another dimension of aten.convolution")
        if not transposed:
            found.pop("output_padding")
        return found

    return adjust


def _convolutions() -> Iterator[CallSpelling]:
    for n in (1, 2, 3):
        conv, back = ops.REGISTRY[f"conv{n}d"], ops.REGISTRY[f"conv_transpose{n}d"]
        yield from _aten(conv, f"conv{n}d.default conv{n}d.padding")
        yield from _aten(back, f"conv_transpose{n}d.{'input' if n > 1 else 'default'} conv_transpose{n}d.default")
        for op, transposed in ((conv, False), (back, True)):
            yield from _aten(op, "convolution.default", adjust=_convolution(n, transposed))
    yield from _aten(ops.linear, "linear.default")
    yield from _aten(ops.bilinear, "bilinear.default", "input1>x input2>y")
    yield from _aten(ops.embedding, "embedding.default", "weight>w indices>x")


def _norms() -> Iterator[CallSpelling]:
    norm = " ".join(f"{a}>{b}" for a, b in _NORM.items())
    yield from _aten(ops.batch_norm, "batch_norm.default", norm, drop="cudnn_enabled")
    yield from _aten(ops.batch_norm, "_native_batch_norm_legit_no_training.default", norm, primary=True, training=False)
    yield from _aten(ops.layer_norm, "layer_norm.default", norm, drop="cudnn_enable")
    yield from _aten(ops.group_norm, "group_norm.default", norm, drop="cudnn_enabled")
    yield from _aten(ops.instance_norm, "instance_norm.default", norm, drop="cudnn_enabled")
    yield from _aten(ops.dropout, "dropout.default dropout_.default feature_dropout.default", "train>training")


def _elementwise() -> Iterator[CallSpelling]:
    for op, paths in (
        (ops.relu, "relu.default relu_.default"),
        (ops.relu6, "relu6.default relu6_.default"),
        (ops.hardtanh, "hardtanh.default hardtanh_.default"),
        (ops.clamp, "clamp.default clamp_.default clip.default clip_.default"),
        (ops.clamp, "clamp_min.default clamp_max.default clamp_min_.default clamp_max_.default"),
        (ops.sigmoid, "sigmoid.default sigmoid_.default"),
        (ops.tanh, "tanh.default tanh_.default"),
        (ops.hardsigmoid, "hardsigmoid.default hardsigmoid_.default"),
        (ops.hardswish, "hardswish.default hardswish_.default"),
        (ops.elu, "elu.default elu_.default"),
        (ops.leaky_relu, "leaky_relu.default leaky_relu_.default"),
        (ops.gelu, "gelu.default"),
        (ops.silu, "silu.default silu_.default"),
        (ops.mish, "mish.default"),
        (ops.prelu, "prelu.default"),
        (ops.softmax, "softmax.int"),
        (ops.softplus, "softplus.default"),
        (ops.exp, "exp.default"),
        (ops.sqrt, "sqrt.default"),
        (ops.neg, "neg.default"),
        (ops.abs, "abs.default"),
        (ops.add, "add.Tensor add_.Tensor add.Scalar"),
        (ops.sub, "sub.Tensor sub_.Tensor sub.Scalar"),
        (ops.mul, "mul.Tensor mul_.Tensor mul.Scalar"),
        (ops.div, "div.Tensor div_.Tensor div.Scalar div.Tensor_mode"),
        (ops.pow, "pow.Tensor_Scalar pow.Tensor_Tensor"),
    ):
        yield from _aten(op, paths, "exponent>y")
    yield from _aten(ops.softmax, "_softmax.default", drop="half_to_float")
    yield from _aten(ops.matmul, "matmul.default mm.default bmm.default", "mat2>y")
    yield from _aten(
        ops.scaled_dot_product_attention,
        "scaled_dot_product_attention.default",
        "query>q key>k value>v attn_mask>mask",
        drop="enable_gqa",
    )


def _pools() -> Iterator[CallSpelling]:
    for n in (1, 2, 3):
        yield from _aten(ops.REGISTRY[f"max_pool{n}d"], f"max_pool{n}d.default", adjust=stride_of_pool)
        yield from _aten(ops.REGISTRY[f"avg_pool{n}d"], f"avg_pool{n}d.default", adjust=stride_of_pool)
        yield from _aten(ops.REGISTRY[f"adaptive_avg_pool{n}d"], f"adaptive_avg_pool{n}d.default")
        yield from _aten(ops.REGISTRY[f"adaptive_max_pool{n}d"], f"adaptive_max_pool{n}d.default", primary=True)
    yield from _aten(ops.max_pool2d, "max_pool2d_with_indices.default", primary=True, adjust=stride_of_pool)
    yield from _aten(ops.mean, "mean.dim mean.default")
    yield from _aten(ops.sum, "sum.dim_IntList sum.default")
    yield from _aten(
        ops.interpolate, "upsample_nearest2d.vec", "output_size>size scale_factors>scale_factor", mode="nearest"
    )
    yield from _aten(
        ops.interpolate, "upsample_bilinear2d.vec", "output_size>size scale_factors>scale_factor", mode="bilinear"
    )
    yield from _aten(ops.pad, "pad.default")
    yield from _aten(ops.pad, "constant_pad_nd.default", mode="constant")


def _shapes() -> Iterator[CallSpelling]:
    for op, paths, renames in (
        (ops.cat, "cat.default concat.default", ""),
        (ops.stack, "stack.default", ""),
        (ops.flatten, "flatten.using_ints", ""),
        (ops.unflatten, "unflatten.int", ""),
        (ops.reshape, "view.default reshape.default _unsafe_view.default", "size>shape"),
        (ops.permute, "permute.default", ""),
        (ops.transpose, "transpose.int", ""),
        (ops.movedim, "movedim.int movedim.intlist", ""),
        (ops.flip, "flip.default", ""),
        (ops.tile, "tile.default", ""),
        (ops.roll, "roll.default", ""),
        (ops.t, "t.default", ""),
        (ops.squeeze, "squeeze.default squeeze.dim squeeze.dims", ""),
        (ops.unsqueeze, "unsqueeze.default", ""),
        (ops.contiguous, "contiguous.default", ""),
        (ops.expand, "expand.default", "size>shape"),
        (ops.repeat, "repeat.default", ""),
        (ops.chunk, "chunk.default", ""),
        (ops.split, "split.Tensor", "split_size>sizes"),
        (ops.split, "split_with_sizes.default split.sizes", "split_sizes>sizes split_size>sizes"),
        (ops.tensor_split, "tensor_split.sections tensor_split.indices", "sections>sizes indices>sizes"),
        (ops.unbind, "unbind.int", ""),
        (ops.narrow, "narrow.default", ""),
        (ops.slice, "slice.Tensor", ""),
        (ops.select, "select.int", ""),
        (ops.pixel_shuffle, "pixel_shuffle.default", ""),
        (ops.pixel_unshuffle, "pixel_unshuffle.default", ""),
        (ops.channel_shuffle, "channel_shuffle.default", ""),
    ):
        yield from _aten(op, paths, renames)
    yield from _aten(ops.identity, "alias.default lift_fresh_copy.default")
    yield from _aten(ops.detach, "detach.default detach_.default")
    yield from _aten(ops.clone, "clone.default")


def spellings() -> Iterator[CallSpelling]:
    """All aten spellings that exist in the running torch."""
    for family in (_convolutions, _norms, _elementwise, _pools, _shapes):
        yield from family()
