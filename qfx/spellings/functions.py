"""Function and method spellings: what ``symbolic_trace`` leaves in a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from qfx import ops
from qfx.ops import Op
from qfx.spellings.spelling import Arguments, CallSpelling, Signature, UnreadableCall, stride_of_pool

Adjust = Callable[[Arguments], Arguments]


def _calls(
    op: Op, signature: str, *targets: Any, inplace: bool = False, adjust: Adjust | None = None, **fixed: Any
) -> Iterator[CallSpelling]:
    parsed = Signature.parse(signature)
    for target in targets:
        # A method or function whose name ends in one underscore writes to its argument: torch's own convention.
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        writes = inplace or (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE_OPERATORS
        yield CallSpelling(target, op, parsed, fixed, inplace=writes, adjust=adjust)


_IN_PLACE_OPERATORS = {"iadd", "isub", "imul", "itruediv"}


def _no_dim(found: Arguments) -> Arguments:
    # torch.max(x, other) is an elementwise maximum, not a reduction.
    if not isinstance(found.get("dim"), int | None):
        raise UnreadableCall("an elementwise max or min")
    return found


def _tensor_split_sizes(found: Arguments) -> Arguments:
    sizes = found["sizes"]
    return found | {"sizes": tuple(sizes) if isinstance(sizes, list) else sizes}


def _only_a_format(found: Arguments) -> Arguments:
    if not isinstance(found["memory_format"], torch.memory_format):
        raise UnreadableCall("a conversion to another dtype or device")
    return found


def _no_dtype(found: Arguments) -> Arguments:
    # x.view(torch.int32) reads the same bytes as other numbers.
    shape = found.get("shape", ())
    if any(isinstance(size, torch.dtype) for size in (shape if isinstance(shape, tuple | list) else (shape,))):
        raise UnreadableCall("a view as another dtype")
    return found


def _named(names: frozenset[str], *, is_in: bool, **fixed: Any) -> Adjust:
    """Attributes of a tensor that are a transposed tensor are no facts about it."""

    def adjust(found: Arguments) -> Arguments:
        if (found["name"] in names) is not is_in:
            raise UnreadableCall(f"the attribute {found['name']!r}")
        return {"x": found["x"], **fixed} if is_in else found

    return adjust


def _convolutions() -> Iterator[CallSpelling]:
    plain = "input>x weight>w bias>b=None stride=1 padding=0 dilation=1 groups=1"
    transposed = "input>x weight>w bias>b=None stride=1 padding=0 output_padding=0 groups=1 dilation=1"
    for n in (1, 2, 3):
        conv, back = ops.REGISTRY[f"conv{n}d"], ops.REGISTRY[f"conv_transpose{n}d"]
        yield from _calls(conv, plain, getattr(F, f"conv{n}d"))
        yield from _calls(back, transposed, getattr(F, f"conv_transpose{n}d"))
    yield from _calls(ops.linear, "input>x weight>w bias>b=None", F.linear)
    yield from _calls(ops.bilinear, "input1>x input2>y weight>w bias>b=None", F.bilinear)
    yield from _calls(
        ops.embedding,
        "input>x weight>w padding_idx=None max_norm=None norm_type=2.0 scale_grad_by_freq=False sparse=False",
        F.embedding,
    )


def _norms() -> Iterator[CallSpelling]:
    yield from _calls(
        ops.batch_norm,
        "input>x running_mean>mean running_var>var weight>gamma=None bias>beta=None "
        "training=False momentum=0.1 eps=1e-05",
        F.batch_norm,
    )
    yield from _calls(
        ops.layer_norm, "input>x normalized_shape weight>gamma=None bias>beta=None eps=1e-05", F.layer_norm
    )
    yield from _calls(ops.group_norm, "input>x num_groups weight>gamma=None bias>beta=None eps=1e-05", F.group_norm)
    yield from _calls(
        ops.instance_norm,
        "input>x running_mean>mean=None running_var>var=None weight>gamma=None bias>beta=None "
        "use_input_stats=True momentum=0.1 eps=1e-05",
        F.instance_norm,
    )
    yield from _calls(ops.dropout, "input>x p=0.5 training=True inplace=False", F.dropout, F.dropout2d, F.dropout3d)


def _activations() -> Iterator[CallSpelling]:
    yield from _calls(ops.relu, "input>x inplace=False", F.relu)
    yield from _calls(ops.relu, "input>x", torch.relu, torch.relu_, "relu", "relu_")
    yield from _calls(ops.relu6, "input>x inplace=False", F.relu6)
    yield from _calls(ops.hardtanh, "input>x min_val=-1.0 max_val=1.0 inplace=False", F.hardtanh)
    yield from _calls(ops.hardtanh, "input>x min_val=-1.0 max_val=1.0", F.hardtanh_)
    yield from _calls(
        ops.clamp,
        "input>x min=None max=None",
        torch.clamp,
        torch.clamp_,
        torch.clip,
        torch.clip_,
        "clamp",
        "clamp_",
        "clip",
        "clip_",
    )
    for end in ("min", "max"):
        both = (f"clamp_{end}", f"clamp_{end}_")
        yield from _calls(ops.clamp, f"input>x {end}", *(getattr(torch, name) for name in both), *both)
    for op, names in (
        (ops.sigmoid, "sigmoid"),
        (ops.tanh, "tanh"),
        (ops.exp, "exp"),
        (ops.sqrt, "sqrt"),
        (ops.neg, "neg negative"),
        (ops.abs, "abs"),
    ):
        for name in (f"{plain}{end}" for plain in names.split() for end in ("", "_")):
            yield from _calls(op, "input>x", getattr(torch, name), name)
    yield from _calls(ops.sigmoid, "input>x", F.sigmoid)
    yield from _calls(ops.tanh, "input>x", F.tanh)
    yield from _calls(ops.neg, "x", operator.neg)
    for op, function in (
        (ops.hardsigmoid, F.hardsigmoid),
        (ops.hardswish, F.hardswish),
        (ops.silu, F.silu),
        (ops.mish, F.mish),
    ):
        yield from _calls(op, "input>x inplace=False", function)
    yield from _calls(ops.elu, "input>x alpha=1.0 inplace=False", F.elu)
    yield from _calls(ops.elu, "input>x alpha=1.0 scale=1.0 input_scale=1.0", F.elu_)
    yield from _calls(ops.leaky_relu, "input>x negative_slope=0.01 inplace=False", F.leaky_relu)
    yield from _calls(ops.leaky_relu, "input>x negative_slope=0.01", F.leaky_relu_)
    yield from _calls(ops.gelu, "input>x approximate='none'", F.gelu)
    yield from _calls(ops.prelu, "input>x weight>w", F.prelu, torch.prelu)
    yield from _calls(ops.softmax, "input>x dim=None _stacklevel=3 dtype=None", F.softmax)
    yield from _calls(ops.softmax, "input>x dim dtype=None", torch.softmax, "softmax")
    yield from _calls(ops.softplus, "input>x beta=1.0 threshold=20.0", F.softplus)
    yield from _calls(ops.softsign, "input>x", F.softsign)


def _arithmetic() -> Iterator[CallSpelling]:
    yield from _calls(ops.add, "x y", operator.add, operator.iadd)
    yield from _calls(ops.add, "input>x other>y alpha=1", torch.add, "add", "add_")
    yield from _calls(ops.sub, "x y", operator.sub, operator.isub)
    yield from _calls(ops.sub, "input>x other>y alpha=1", torch.sub, "sub", "sub_")
    yield from _calls(ops.mul, "x y", operator.mul, operator.imul)
    yield from _calls(ops.mul, "input>x other>y", torch.mul, torch.multiply, "mul", "mul_", "multiply", "multiply_")
    yield from _calls(ops.div, "x y", operator.truediv, operator.itruediv)
    yield from _calls(ops.div, "input>x other>y rounding_mode=None", torch.div, "div", "div_")
    yield from _calls(ops.pow, "x y", operator.pow)
    yield from _calls(ops.pow, "input>x exponent>y", torch.pow, "pow", "pow_")
    yield from _calls(ops.matmul, "x y", operator.matmul)
    yield from _calls(ops.matmul, "input>x other>y", torch.matmul, "matmul")
    yield from _calls(ops.matmul, "input>x mat2>y", torch.bmm, "bmm", torch.mm, "mm")
    yield from _calls(
        ops.scaled_dot_product_attention,
        "query>q key>k value>v attn_mask>mask=None dropout_p=0.0 is_causal=False scale=None",
        F.scaled_dot_product_attention,
    )


def _pools() -> Iterator[CallSpelling]:
    for n in (1, 2, 3):
        largest, average = ops.REGISTRY[f"max_pool{n}d"], ops.REGISTRY[f"avg_pool{n}d"]
        signature = "input>x kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False"
        yield from _calls(largest, signature, getattr(F, f"max_pool{n}d"), adjust=stride_of_pool)
        yield from _calls(
            largest,
            signature.replace(" return_indices=False", ""),
            getattr(torch, f"max_pool{n}d"),
            adjust=stride_of_pool,
        )
        signature = "input>x kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True"
        signature += " divisor_override=None" if n > 1 else ""
        yield from _calls(average, signature, getattr(F, f"avg_pool{n}d"), adjust=stride_of_pool)
        for kind, more in (("avg", ""), ("max", " return_indices=False")):
            name = f"adaptive_{kind}_pool{n}d"
            yield from _calls(ops.REGISTRY[name], f"input>x output_size{more}", getattr(F, name))
    for op, name in ((ops.mean, "mean"), (ops.sum, "sum")):
        yield from _calls(op, "input>x dim=None keepdim=False dtype=None", getattr(torch, name), name)
    for op, name in ((ops.max, "max"), (ops.min, "min")):
        yield from _calls(op, "input>x dim=None keepdim=False", getattr(torch, name), name, adjust=_no_dim)
    yield from _calls(
        ops.interpolate,
        "input>x size=None scale_factor=None mode='nearest' align_corners=None "
        "recompute_scale_factor=None antialias=False",
        F.interpolate,
    )
    yield from _calls(
        ops.interpolate, "input>x size=None scale_factor=None mode='nearest' align_corners=None", F.upsample
    )
    yield from _calls(ops.pad, "input>x pad mode='constant' value=None", F.pad)


def _shapes() -> Iterator[CallSpelling]:
    for signature, op, names in (
        ("input>x start_dim=0 end_dim=-1", ops.flatten, "flatten"),
        ("input>x dim sizes", ops.unflatten, "unflatten"),
        ("input>x dim0 dim1", ops.transpose, "transpose swapaxes swapdims"),
        ("input>x source destination", ops.movedim, "movedim moveaxis"),
        ("input>x shifts dims=()", ops.roll, "roll"),
        ("input>x", ops.t, "t"),
        ("input>x dim=None", ops.squeeze, "squeeze squeeze_"),
        ("input>x dim", ops.unsqueeze, "unsqueeze unsqueeze_"),
        ("input>x chunks dim=0", ops.chunk, "chunk"),
        ("input>x dim=0", ops.unbind, "unbind"),
        ("input>x dim start length", ops.narrow, "narrow"),
        ("input>x dim index", ops.select, "select"),
        ("input>x", ops.detach, "detach detach_"),
        ("input>x memory_format=None", ops.clone, "clone"),
        ("input>x repeats dim=None output_size=None", ops.repeat_interleave, "repeat_interleave"),
    ):
        for name in names.split():
            functions = [getattr(torch, name)] if hasattr(torch, name) else []
            yield from _calls(op, signature, *functions, name)
    yield from _calls(ops.split, "input>x split_size_or_sections>sizes dim=0", torch.split, adjust=_tensor_split_sizes)
    yield from _calls(ops.split, "x split_size>sizes dim=0", "split", adjust=_tensor_split_sizes)
    for name in ("sections", "indices", "tensor_indices_or_sections", "indices_or_sections"):
        signature = f"input>x {name}>sizes dim=0"
        yield from _calls(ops.tensor_split, signature, torch.tensor_split, "tensor_split", adjust=_tensor_split_sizes)
    yield from _calls(ops.reshape, "input>x shape", torch.reshape)
    yield from _calls(ops.reshape, "x *shape", "reshape", "view", adjust=_no_dtype)
    yield from _calls(ops.flatten, "input>x", torch.ravel, "ravel")
    for op in (ops.flip, ops.tile):
        yield from _calls(op, "input>x dims", getattr(torch, op.name))
        yield from _calls(op, "x *dims", op.name)
    yield from _calls(ops.permute, "input>x dims", torch.permute)
    yield from _calls(ops.permute, "x *dims", "permute")
    yield from _calls(ops.expand, "x *shape", "expand")
    yield from _calls(ops.repeat, "x *repeats", "repeat")
    yield from _calls(ops.contiguous, "x memory_format=None", "contiguous")
    yield from _calls(ops.contiguous, "x memory_format", "to", adjust=_only_a_format)
    for op, names in ((ops.cat, "cat concat concatenate"), (ops.stack, "stack")):
        for name in names.split():
            yield from _calls(op, "tensors>xs dim=0", getattr(torch, name))
    yield from _calls(ops.pixel_shuffle, "input>x upscale_factor", F.pixel_shuffle)
    yield from _calls(ops.pixel_unshuffle, "input>x downscale_factor", F.pixel_unshuffle)
    yield from _calls(ops.channel_shuffle, "input>x groups", F.channel_shuffle)
    yield from _calls(ops.getitem, "x index", operator.getitem)


def _facts() -> Iterator[CallSpelling]:
    turned = frozenset({"T", "H"})
    yield from _calls(ops.getattr, "x name", getattr, adjust=_named(turned | {"mT", "mH"}, is_in=False))
    yield from _calls(ops.t, "x name", getattr, adjust=_named(turned, is_in=True))
    matrices = _named(frozenset({"mT", "mH"}), is_in=True, dim0=-2, dim1=-1)
    yield from _calls(ops.transpose, "x name", getattr, adjust=matrices)
    yield from _calls(ops.size, "x dim=None", "size")
    yield from _calls(ops.dim, "x", "dim", "ndimension")
    yield from _calls(ops.REGISTRY["assert"], "condition>x message=None", torch._assert)


def _quantization() -> Iterator[CallSpelling]:
    yield from _calls(ops.quantize, "input>x scale zero_point dtype", torch.quantize_per_tensor)
    yield from _calls(
        ops.quantize, "input>x scales>scale zero_points>zero_point axis dtype", torch.quantize_per_channel
    )
    yield from _calls(ops.quantize_dynamic, "input>x dtype reduce_range", torch.quantize_per_tensor_dynamic)
    yield from _calls(ops.dequantize, "input>x", "dequantize", torch.dequantize)


def spellings() -> Iterator[CallSpelling]:
    """All function and method spellings."""
    for family in (_convolutions, _norms, _activations, _arithmetic, _pools, _shapes, _facts, _quantization):
        yield from family()
