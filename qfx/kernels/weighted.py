"""PyTorch's quantized convolutions and linear layers, as kernel objects: the engine is chosen layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qfx.kernels import reference
from qfx.kernels.engines import EngineChoice, LayerFacts, engine_for
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.kernels.packing import PackedSpec
from qfx.reject import Reject

_Q = torch.ops.quantized


@dataclass(frozen=True)
class WeightedKernel(Kernel):
    """A kernel whose weight is packed for the engine that the rule table gives its layer."""

    def engine(self, site: KernelSite) -> EngineChoice | Reject:
        """The engine that runs the layer, or why none does."""
        if site.weight_dtype is not torch.qint8:
            return Reject(f"the kernels take weights of torch.qint8, not {site.weight_dtype}")
        if site.layer is None:
            return Reject("the kernels pad both sides alike; this 'same' padding does not")
        found = engine_for(site.layer)
        if isinstance(found, Reject) and site.layer.transposed and site.layer.per_channel:
            return Reject(f"{found}. Give the layer a weight observer per tensor (default_weight_observer)")
        return found

    def supports(self, site: KernelSite) -> Reject | None:
        """Why the kernel does not take a place, or None if some engine does."""
        refused = Kernel.supports(self, site)
        if refused is not None:
            return refused
        choice = self.engine(site)
        return choice if isinstance(choice, Reject) else None

    def pack(self, site: KernelSite, weight: Tensor, bias: Tensor | None) -> PackedSpec:
        """What the packed weight is made from, for a place the kernel supports.

        Args:
            site: the place.
            weight: quantized, ``torch.qint8``.
            bias: float, or None.
        """
        choice, layer = self.engine(site), site.layer
        assert isinstance(choice, EngineChoice)
        assert layer is not None
        if self.op == "linear":
            return PackedSpec("linear", weight, bias, engine=choice.engine)
        return PackedSpec(
            self.op.replace("_transpose", ""),
            weight,
            bias,
            stride=layer.stride,
            padding=layer.padding,
            output_padding=layer.output_padding or (0,) * len(layer.stride),
            dilation=layer.dilation,
            groups=layer.groups,
            transposed=layer.transposed,
            engine=choice.engine,
        )


def layer_facts(
    op: str,
    shape: tuple[int, ...],
    attrs: Mapping[str, Any],
    *,
    per_channel: bool,
    symmetric: bool,
    most: int = 255,
) -> LayerFacts | None:
    """What the engine table is told of a layer; None where its padding is not the same on both sides.

    Args:
        op: the canonical op's name.
        shape: of the weight, as the op takes it.
        attrs: stride, padding (numbers, ``"same"`` or ``"valid"``), dilation, groups, for a convolution.
        per_channel: one scale an output channel.
        symmetric: every zero point of the weight is 0.
        most: the largest code activations take inside the observed range.
    """
    codes = (0, most)
    if op == "linear":
        out, into = shape
        return LayerFacts(op, into, out, per_channel=per_channel, symmetric_weight=symmetric, act_codes=codes)
    padding = _numeric_padding(attrs, shape[2:])
    if padding is None:
        return None
    groups, transposed = attrs["groups"], op.startswith("conv_transpose")
    return LayerFacts(
        op,
        in_channels=shape[0] if transposed else shape[1] * groups,
        out_channels=shape[1] * groups if transposed else shape[0],
        groups=groups,
        kernel=tuple(shape[2:]),
        stride=tuple(attrs["stride"]),
        padding=padding,
        dilation=tuple(attrs["dilation"]),
        output_padding=tuple(attrs.get("output_padding", ())),
        per_channel=per_channel,
        symmetric_weight=symmetric,
        act_codes=codes,
    )


def _numeric_padding(attrs: Mapping[str, Any], kernel: tuple[int, ...]) -> tuple[int, ...] | None:
    padding = attrs["padding"]
    if not isinstance(padding, str):
        return tuple(padding)
    if padding == "valid":
        return (0,) * len(kernel)
    total = [d * (k - 1) for d, k in zip(attrs["dilation"], kernel, strict=True)]
    return None if any(t % 2 for t in total) else tuple(t // 2 for t in total)


def output_axis(op: str) -> int:
    """The axis of a weight that counts its output channels (those of one group, in a transposed convolution)."""
    return 1 if op.startswith("conv_transpose") else 0


def scales_elsewhere(site: KernelSite) -> str | None:
    """Limit: a scale belongs to an output channel; kernels read any list of scales as theirs."""
    wanted = output_axis(site.op)
    if site.weight_axis is None or site.weight_axis == wanted:
        return None
    return (
        f"the scales of its weight lie along axis {site.weight_axis}, its output channels along axis {wanted}; "
        f"use a weight observer with ch_axis={wanted}, or one per tensor"
    )


def _padding_mode(site: KernelSite) -> str | None:
    mode = site.attrs.get("padding_mode", "zeros")
    return None if mode in ("zeros", "reflect") else f"no kernel pads by {mode!r}"


def _kernel(op: str, computes: Callable[..., Tensor]) -> WeightedKernel:
    with_relu = None if "transpose" in op else getattr(_Q, f"{op}_relu")
    return WeightedKernel(
        op, f"quantized.{op}", getattr(_Q, op), computes, (_padding_mode, scales_elsewhere), with_relu
    )


WEIGHTED: Mapping[str, WeightedKernel] = {
    "linear": _kernel("linear", reference.linear),
    **{op: _kernel(op, reference.conv) for n in (1, 2, 3) for op in (f"conv{n}d", f"conv_transpose{n}d")},
}
"""By canonical op."""
