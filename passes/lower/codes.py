"""Clamps and constants in codes of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from qfx.graph import Param, Reading
from qfx.passes.lower.roles import layer_of_weight
from qfx.patterns import Match
from qfx.reject import Reject


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ends of a clamp in real numbers; None where it is open."""

    low: float | None = None
    high: float | None = None

    def then(self, other: Bounds) -> Bounds:
        """This clamp, then another: the other one clamps the ends of this one."""
        low = other.low if self.low is None else other._clamped(self.low)
        high = other.high if self.high is None else other._clamped(self.high)
        return Bounds(low, high)

    def _clamped(self, value: float) -> float:
        value = value if self.low is None else max(value, self.low)
        return value if self.high is None else min(value, self.high)

    def named(self) -> dict[str, float]:
        """The ends there are, as keyword arguments ``low`` and ``high``."""
        return {name: value for name, value in (("low", self.low), ("high", self.high)) if value is not None}

    def beyond(self, scale: float, zero_point: int, lowest: int = 0, highest: int = 255) -> Bounds:
        """The ends that saturation at the stored type does not give anyway.

        Kernels saturate at 0..255, not at ``quant_max``: relu with zero point 0 is free, relu6 is only with 8 bits.
        """
        low, high = self.low, self.high
        if low is not None and round(low / scale) + zero_point <= lowest:
            low = None
        if high is not None and round(high / scale) + zero_point >= highest:
            high = None
        return Bounds(low, high)

    @staticmethod
    def of(clamp: Reading | None) -> Bounds:
        """What a relu, relu6, hardtanh or clamp bounds; nothing for None."""
        if clamp is None:
            return Bounds()
        attrs: Any = clamp.attrs
        name = clamp.op.name
        if name == "relu":
            return Bounds(0.0)
        if name == "relu6":
            return Bounds(0.0, 6.0)
        found = Bounds(attrs["min_val"], attrs["max_val"]) if name == "hardtanh" else Bounds(attrs["min"], attrs["max"])
        # torch clamps low first, so an empty range is its high.
        return Bounds(found.low if found.low is None else found._clamped(found.low), found.high)


def bounds(found: Match) -> Bounds:
    """What the clamps of a match amount to."""
    return Bounds.of(found.first_clamp).then(Bounds.of(found.second_clamp))


def relu_first(found: Match) -> bool:
    """Whether a relu follows the op: a kernel of both is for that. Of a relu6, saturation and a clamp do all."""
    return Bounds.of(found.first_clamp) == Bounds(0.0)


def constant_clamps(found: Match) -> bool | Reject:
    """Guard: the bounds of the clamps after an op are numbers."""
    return _numbers(found.first_clamp, found.second_clamp)


def constant_bounds(found: Match) -> bool | Reject:
    """Guard: if the op is a clamp, its bounds are numbers; kernels on codes take no tensors for them."""
    return _numbers(found.op if found.op.op.clamp else None)


def _numbers(*clamps: Reading | None) -> bool | Reject:
    for clamp in clamps:
        if clamp is not None and any(isinstance(value, Node) for value in clamp.attrs.values()):
            return Reject(f"the bounds of {clamp.node} are tensors", clamp.node)
    return True


def output(found: Match) -> tuple[float, int]:
    """Scale and zero point of the quantize a match ends with."""
    return found.once(_output)


def _output(found: Match) -> tuple[float, int]:
    return numbers(found.scale, found.zero_point)


def numbers(scale: Param, zero_point: Param) -> tuple[float, int]:
    """A scale and a zero point as numbers."""
    return float(scale.number()), int(zero_point.number())


def per_tensor_output(found: Match) -> bool | Reject:
    """Guard: nothing matched was to stay float, and the result is an activation, quantized per tensor with constants.

    An op that stays float may stand between quantized values all the same, where its readers quantize what they read.
    """
    stays: dict[str, str] = getattr(found.view.gm, "plan", {}).get("float", {})
    for node in found.nodes if stays else ():
        if node.name in stays:
            return Reject(stays[node.name], node)
    layer = layer_of_weight(found.view, found.anchor)
    if layer is not None:
        return Reject(f"the result is the weight of {layer}, and kernels give activations", found.anchor)
    for value in (found.scale, found.zero_point):
        if getattr(getattr(value, "tensor", None), "dim", lambda: 1)() != 0:
            return Reject("the output is not quantized per tensor with constants", found.anchor)
    return True
