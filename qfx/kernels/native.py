"""PyTorch's quantized kernels that have no weight, as objects; those with one are in `qfx.kernels.weighted`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from qfx.kernels import reference
from qfx.kernels.kernel import Kernel, KernelSite, fixed_output, one_of

_Q = torch.ops.quantized
_SIGMOID, _TANH = reference.SIGMOID_OUT.scalars(), reference.TANH_OUT.scalars()


def _plain_elu(site: KernelSite) -> str | None:
    plain = site.attrs["scale"] == site.attrs["input_scale"] == 1.0
    return None if plain else "the kernel of elu has no scale besides alpha"


def _whole_norm(site: KernelSite) -> str | None:
    return f"the kernel of batch norm needs {', '.join(site.missing)}" if site.missing else None


def _no_qnnpack_3d(site: KernelSite) -> str | None:
    if torch.backends.quantized.engine != "qnnpack":
        return None
    return "qnnpack has no max pool in three dimensions"


def _elu(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (x, scale, zero_point, attrs["alpha"])


def _leaky_relu(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (x, attrs["negative_slope"], False, scale, zero_point)


def _same(op: str, computes: Any, *limits: Any) -> Kernel:
    return Kernel(op, f"quantized {op}", None, computes, limits)


_OWN_RANGE = (
    Kernel("add", "quantized.add", _Q.add, reference.add, with_relu=_Q.add_relu),
    Kernel("mul", "quantized.mul", _Q.mul, reference.mul, with_relu=_Q.mul_relu),
    Kernel("sigmoid", "quantized.sigmoid", _Q.sigmoid, reference.sigmoid),
    Kernel("tanh", "quantized tanh", None, reference.tanh, (fixed_output(*_TANH),)),
    Kernel("hardsigmoid", "quantized hardsigmoid", None, reference.hardsigmoid, (fixed_output(*_SIGMOID),)),
    Kernel("hardswish", "quantized.hardswish", _Q.hardswish, reference.hardswish),
    Kernel("elu", "quantized.elu", _Q.elu, reference.elu, (_plain_elu,), arrange=_elu),
    Kernel("leaky_relu", "quantized.leaky_relu", _Q.leaky_relu, reference.leaky_relu, arrange=_leaky_relu),
    Kernel("batch_norm", "quantized.batch_norm", _Q.batch_norm, reference.batch_norm, (_whole_norm,)),
    Kernel("layer_norm", "quantized.layer_norm", _Q.layer_norm, reference.layer_norm),
    Kernel("cat", "quantized.cat", _Q.cat, reference.cat),
)
_INPUTS_RANGE = (
    _same("relu", reference.relu),
    _same("relu6", reference.clamp),
    _same("hardtanh", reference.clamp),
    _same("clamp", reference.clamp),
    _same("max_pool1d", reference.max_pool),
    _same("max_pool2d", reference.max_pool),
    _same("max_pool3d", reference.max_pool, _no_qnnpack_3d),
    *(_same(f"avg_pool{n}d", reference.avg_pool) for n in (1, 2, 3)),
    *(_same(f"adaptive_avg_pool{n}d", reference.adaptive_avg_pool) for n in (1, 2, 3)),
    _same("mean", reference.mean),
    _same("pad", reference.pad, one_of("mode", "constant", "reflect", verb="pads by")),
    _same(
        "interpolate",
        reference.interpolate_bilinear,
        one_of("mode", "nearest", "bilinear", verb="interpolates by"),
    ),
)

NATIVE: Mapping[str, Kernel] = {kernel.op: kernel for kernel in (*_OWN_RANGE, *_INPUTS_RANGE)}
"""By canonical op. Ops that only move values (view, permute, chunk ...) need no entry: any tensor takes them."""
