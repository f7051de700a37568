"""What a weight packed by onednn is made from, and the packed weight itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qfx.errors import KernelError

KINDS = ("linear", "conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, eq=False)
class OnednnSpec:
    """Everything a packed weight is made from; the thing to keep, copy and save instead of the packed one.

    Args:
        kind: ``"linear"``, ``"conv1d"``, ``"conv2d"`` or ``"conv3d"``.
        weight: codes, ``torch.int8``, ``(out, in)`` or ``(out, in / groups, *kernel)``.
        scale: of the weight, float32: one element, or one per output channel. Zero points are 0.
        bias: float32 of length ``out``, or None.
        stride, padding, dilation: one int per spatial dimension; empty for linear.
        groups: number of groups of a convolution.

    Raises:
        KernelError: no such kind, or a weight that is not ``torch.int8`` or has no elements.
    """

    kind: str
    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise KernelError(f"onednn packs no weight of kind {self.kind!r}; use one of {', '.join(KINDS)}")
        if self.weight.dtype is not torch.int8:
            raise KernelError(f"onednn takes torch.int8 weights, not {self.weight.dtype}")
        if self.weight.numel() == 0:
            raise KernelError("onednn ends the process given a weight without elements")

    def state(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a state dict keeps of it: codes, scales and bias."""
        return self.weight, self.scale, self.bias

    def with_state(self, state: Any) -> OnednnSpec:
        """This spec with the codes, scales and bias of a state dict.

        Raises:
            KernelError: the shapes differ.
        """
        weight, scale, bias = state
        if weight.shape != self.weight.shape:
            shapes = f"{tuple(weight.shape)}, this layer {tuple(self.weight.shape)}"
            raise KernelError(f"the state dict has a weight of shape {shapes}; build the model it was saved from")
        return replace(self, weight=weight, scale=scale, bias=bias)

    def pack(self) -> PackedOnednn:
        """Lay the weight out for this machine."""
        return PackedOnednn(self)


class PackedOnednn:
    """A weight in onednn's layout, with all a call needs beside its input.

    A one-dimensional convolution is a two-dimensional one of height 1, which has more post-ops. The layout depends on
    the input's parameters, so a weight is packed when the first input comes, and again only where those change.
    """

    def __init__(self, spec: OnednnSpec) -> None:
        self.kind, self.bias, self.groups = spec.kind, spec.bias, spec.groups
        self.rank, self.out_channels = spec.weight.dim(), spec.weight.shape[0]
        self.in_channels = spec.weight.shape[1] * spec.groups
        self.scale = spec.scale.reshape(-1).float()
        self.zero_point = torch.zeros(self.scale.numel(), dtype=torch.int32)
        flat = spec.kind == "conv1d"
        self.stride = [1, *spec.stride] if flat else list(spec.stride)
        self.padding = [0, *spec.padding] if flat else list(spec.padding)
        self.dilation = [1, *spec.dilation] if flat else list(spec.dilation)
        self._codes = (spec.weight.unsqueeze(2) if flat else spec.weight).contiguous()
        self.kernel = tuple(self._codes.shape[2:])
        self._made_for: tuple[float, int] | None = None
        self._made: Tensor | None = None

    def weight(self, x_scale: float, x_zero_point: int) -> Tensor:
        """The packed weight for inputs of these parameters."""
        if self._made is None or self._made_for != (x_scale, x_zero_point):
            self._made_for = (x_scale, x_zero_point)
            self._made = self._pack(x_scale, x_zero_point)
        return self._made

    def _pack(self, x_scale: float, x_zero_point: int) -> Tensor:
        if self.kind == "linear":
            packed: Tensor = torch.ops.onednn.qlinear_prepack(self._codes, None)
            return packed
        packed = torch.ops.onednn.qconv_prepack(
            self._codes,
            self.scale,
            x_scale,
            x_zero_point,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            None,
        )
        return packed
