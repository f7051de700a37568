"""A kernel as an object: what it takes, what it calls, and what that computes, in exact integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qfx.kernels.engines import LayerFacts
from qfx.reject import Reject


@dataclass(frozen=True)
class KernelSite:
    """The place a kernel would stand at, as plain data: no graph, no node.

    Attributes:
        op: the canonical op's name.
        attrs: its attributes.
        output: scale and zero point of the result; None where it has its input's.
        layer: what is known of a layer with a weight; None for other ops.
        weight_dtype: the dtype of the weight's codes; None without a weight.
        weight_axis: the axis of the weight its scales lie along; None for one scale, or without a weight.
        rank: how many dimensions the result has; None where nobody saw it.
        missing: optional inputs that are not there (``gamma`` of a batch norm without one).
        computed: inputs that should be parameters but are computed while the model runs.
    """

    op: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    output: tuple[float, int] | None = None
    layer: LayerFacts | None = None
    weight_dtype: torch.dtype | None = None
    weight_axis: int | None = None
    rank: int | None = None
    missing: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()


Limit = Callable[[KernelSite], "str | None"]
"""What a kernel does not take: a clause saying so, or None."""


def _never(site: KernelSite) -> bool:
    return False


def _usual(x: Any, scale: Any, zero_point: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    return (x, scale, zero_point)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a target.

    Attributes:
        op: the canonical op it computes.
        name: what reports call it.
        call: the function a graph calls; None where the float op's own call does, given quantized tensors.
        reference: a pure function from codes and `QParams` to codes, equal to the kernel bit for bit.
        limits: what it does not take.
        with_relu: the function that also keeps the result at or above zero; None if there is none.
        arrange: ``(x, scale, zero_point, attrs) -> arguments`` of ``call``.
        own_call: in which places the float op's own call does all the same.

    Example:
        >>> from qfx.kernels.native import NATIVE
        >>> site = KernelSite("elu", {"alpha": 1.0, "scale": 1.05, "input_scale": 1.0})
        >>> str(NATIVE["elu"].supports(site))
        'the kernel of elu has no scale besides alpha'
    """

    op: str
    name: str
    call: Any
    reference: Callable[..., Tensor]
    limits: tuple[Limit, ...] = ()
    with_relu: Any = None
    arrange: Callable[[Any, Any, Any, Mapping[str, Any]], tuple[Any, ...]] = _usual
    own_call: Callable[[KernelSite], bool] = _never

    def function(self, site: KernelSite) -> Any:
        """The function a graph calls in a place; None for the float op's own call."""
        return None if self.own_call(site) else self.call

    def supports(self, site: KernelSite) -> Reject | None:
        """Why the kernel does not take a place, or None if it does."""
        if site.computed:
            return Reject(f"{', '.join(site.computed)} of {site.op} must be constants, and here they are computed")
        for limit in self.limits:
            said = limit(site)
            if said is not None:
                return Reject(said)
        return None


def fixed_output(scale: float, zero_point: int) -> Limit:
    """Limit: the kernel's result always has this scale and zero point."""

    def limit(site: KernelSite) -> str | None:
        if site.output == (scale, zero_point):
            return None
        return f"the kernel of {site.op} gives scale {scale} and zero point {zero_point} only"

    return limit


def one_of(attribute: str, *values: Any, verb: str) -> Limit:
    """Limit: only these values of an attribute; ``verb`` finishes "no quantized kernel ..."."""

    def limit(site: KernelSite) -> str | None:
        found = site.attrs[attribute]
        return None if found in values else f"no quantized kernel {verb} {found!r}"

    return limit
