"""onednn's convolutions and linear layers as kernel objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qfx.kernels import reference
from qfx.kernels.engines import limits
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.kernels.onednn.spec import OnednnSpec
from qfx.kernels.onednn.weighted import conv, conv_add, linear, linear_add
from qfx.kernels.sums import Sums, sums
from qfx.kernels.weighted import scales_elsewhere
from qfx.reject import Reject


@dataclass(frozen=True)
class OnednnKernel(Kernel):
    """A kernel with a packed weight.

    Attributes:
        with_add: the function that also adds other codes to the result; None if there is none.
        bounded: whether the function takes bounds of the result.
    """

    with_add: Any = None
    bounded: bool = True

    def supports(self, site: KernelSite) -> Reject | None:
        """Why onednn does not take a layer, or None if it does."""
        refused = Kernel.supports(self, site)
        if refused is not None:
            return refused
        if site.weight_dtype not in (torch.qint8, torch.int8):
            return Reject(f"the kernels take weights of 8 bits with sign, not {site.weight_dtype}")
        if site.layer is None:
            return Reject("the kernels pad both sides alike; this 'same' padding does not")
        return limits(site.layer, "onednn", tiles=False)  # what goes wrong there, our functions see to

    def sums(self, site: KernelSite) -> Sums:
        """How products are added at a place the kernel supports."""
        assert site.layer is not None
        return sums("onednn", site.layer)

    def pack(self, site: KernelSite, weight: Tensor, scale: Tensor, bias: Tensor | None) -> OnednnSpec:
        """What the packed weight is made from, for a place the kernel supports.

        Args:
            site: the place.
            weight: codes, ``torch.int8``.
            scale: one element, or one per output channel.
            bias: float, or None.
        """
        layer = site.layer
        assert layer is not None
        return OnednnSpec(
            self.op,
            weight,
            scale.reshape(-1).float(),
            bias,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )


def _zeros_only(site: KernelSite) -> str | None:
    mode = site.attrs.get("padding_mode", "zeros")
    return None if mode == "zeros" else f"onednn pads with zeros only, not by {mode!r}"


def _kernel(
    op: str, call: Callable[..., Tensor], computes: Callable[..., Tensor], add: Any = None, *, bounded: bool = True
) -> OnednnKernel:
    limits = (_zeros_only, scales_elsewhere)
    return OnednnKernel(op, f"onednn.{op}", call, computes, limits, with_add=add, bounded=bounded)


WEIGHTED: Mapping[str, OnednnKernel] = {
    "linear": _kernel("linear", linear, reference.linear, linear_add),
    "conv1d": _kernel("conv1d", conv, reference.conv),
    "conv2d": _kernel("conv2d", conv, reference.conv, conv_add),
    "conv3d": _kernel("conv3d", conv, reference.conv, bounded=False),
}
"""By canonical op."""
