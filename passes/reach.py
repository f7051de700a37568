"""How far the codes of values go, and the clamp that keeps them from where 16-bit sums overflow.

An observer of 7 bits solves a range for the codes 0 to 127, but whatever saturates does so at 255: where the solver cut
the range, a value it has seen has a larger code, and products of such codes can overflow the 16-bit sums some kernels
add them in. Such a value gets a clamp to its ``quant_max``, in the reference graph already, so that all targets compute
the same; nothing else does, for values nobody multiplies and ranges that were not cut need none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.fx import Node

from qfx import ops
from qfx.graph import GraphView, Reading
from qfx.kernels import codes
from qfx.kernels.reference import SAFE_CODE
from qfx.ops import QParamClass
from qfx.passes.lower.codes import Bounds
from qfx.passes.pipeline import Context
from qfx.spellings import CallSpelling, Signature, register

register(
    CallSpelling(codes.clamp, ops.clamp_codes, Signature.parse("q>x low=None high=None most=None reuse=False"), {})
)

KEY = "qfx_reach"
"""Metadata of a node that makes codes: its `Reach`, as a tuple. What a node is lowered to inherits it."""


class Reach(NamedTuple):
    """The largest code of a value: for inputs inside the observed range, and for any input."""

    inside: int
    ever: int


@dataclass(frozen=True, slots=True)
class Scale:
    """What quantizes a value of 8 bits without sign.

    Attributes:
        scale, zero_point: its parameters.
        seen: the largest value its observer met; None where it does not know.
        most: the largest code the observer solved for.
    """

    scale: float
    zero_point: int
    seen: float | None
    most: int

    def code(self, value: float) -> int:
        """The code of a real number, saturated; of two at a tie the larger, as engines differ there."""
        if math.isinf(value):
            return 255 if value > 0 else 0
        return min(255, max(0, math.floor(value / self.scale + self.zero_point + 0.5001)))

    def value(self, code: int) -> float:
        """The real number a code stands for."""
        return (code - self.zero_point) * self.scale


class _Most(NamedTuple):
    """The largest real value: for inputs inside the observed range, and for any input."""

    inside: float
    ever: float


_ANY = _Most(math.inf, math.inf)


def reach_of(view: GraphView, node: Any) -> Reach:
    """How far the codes of a value go, as `keep_within` found out; 255 where it is not known.

    Args:
        view: the graph, of any stage after conversion.
        node: what makes the codes; values that are only moved (an item of a split) are followed to there.
    """
    while isinstance(node, Node):
        known = node.meta.get(KEY)
        if known is not None:
            return Reach(*known)
        reading = view.read(node)
        if reading.op.qparams is not QParamClass.SAME or not reading.inputs:
            break
        node = reading.inputs[0]
    return Reach(255, 255)


def keep_within(context: Context, scales: Mapping[Node, Scale], weighted: frozenset[str]) -> None:
    """Find out how far codes go in a reference graph, and clamp those that products could overflow on.

    Args:
        context: the reference graph.
        scales: quantize nodes of activations of 8 bits without sign.
        weighted: names of the nodes that multiply their input with a weight of 8 bits.
    """
    view = context.view
    multiplied, most = _multiplied(context, weighted), dict[Node, _Most]()
    for node in list(context.rewriter.gm.graph.nodes):
        reading, scale = view.read(node), scales.get(node)
        if scale is None:
            found = _passed_on(view, reading, most)
            if found is not None:
                most[node] = found
            continue
        given = most.get(node.args[0], _ANY)
        ever = scale.code(given.ever)
        inside = min(ever, scale.code(given.inside), 255 if scale.seen is None else scale.code(scale.seen))
        last = node
        if node in multiplied and inside > max(SAFE_CODE, scale.most):
            last, inside, ever = _clamp(context, node, scale.most), scale.most, scale.most
        node.meta[KEY] = last.meta[KEY] = (inside, ever)
        most[last] = _Most(scale.value(inside), scale.value(ever))


def _clamp(context: Context, quantized: Node, most: int) -> Node:
    view, (back,) = context.view, quantized.users
    fresh = _makes_a_tensor(view, quantized.args[0])
    with context.rewriter.at(back):
        made = context.rewriter.call(codes.clamp, quantized, most=most, **({"reuse": True} if fresh else {}))
    back.replace_input_with(quantized, made)
    view.forget(back)
    return made


def _makes_a_tensor(view: GraphView, value: Any) -> bool:
    """Whether the kernel that will stand for a value returns memory nobody else reads: moves may return a view."""
    while isinstance(value, Node) and view.read(value).op.clamp:
        value = view.read(value).inputs[0]
    if not isinstance(value, Node):
        return False
    op = view.read(value).op
    return op.qparams is not QParamClass.SAME and op is not ops.dequantize


def _multiplied(context: Context, weighted: frozenset[str]) -> set[Node]:
    """The values that are multiplied with weights, on the way from the quantize to there."""
    view, found = context.view, set[Node]()
    for node in reversed(context.rewriter.gm.graph.nodes):
        reading = view.read(node)
        if node.name in weighted:
            found.update(n for n in reading.inputs[:1] if isinstance(n, Node))
        elif node in found and (reading.op is ops.dequantize or _keeps(reading)):
            found.update(_tensors(reading))
    return found


def _passed_on(view: GraphView, reading: Reading, most: Mapping[Node, _Most]) -> _Most | None:
    """How large a value is that stays in the range of what it is made from; None for others."""
    op, attrs = reading.op, reading.attrs
    sources = [most.get(source, _ANY) for source in _tensors(reading)]
    if not sources:
        return None
    given = _Most(max(source.inside for source in sources), max(source.ever for source in sources))
    if op is ops.dequantize:
        return given
    if op.clamp:
        bounds = Bounds.of(reading)
        low, high = (b if isinstance(b, int | float) else None for b in (bounds.low, bounds.high))
        if bounds.low is not None and low is None:
            return _ANY
        return _Most(*(_bounded(each, low, high) for each in given))
    if not _keeps(reading):
        return None
    if op is ops.pad and attrs["mode"] == "constant":
        value = attrs["value"] or 0.0
        return _Most(*(max(each, float(value)) for each in given)) if isinstance(value, int | float) else _ANY
    return _Most(*(max(each, 0.0) for each in given)) if op.name.startswith("avg_pool") else given


def _bounded(value: float, low: float | None, high: float | None) -> float:
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


_WITHIN = frozenset({"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area"})


def _keeps(reading: Reading) -> bool:
    """Whether an op moves, pools or joins values; none is larger than all it is given (or 0, or the padding)."""
    op, attrs = reading.op, reading.attrs
    if op is ops.cat:
        return True
    if op.qparams is not QParamClass.SAME or attrs.get("divisor_override") is not None:
        return False
    return op is not ops.interpolate or attrs["mode"] in _WITHIN


def _tensors(reading: Reading) -> Iterator[Node]:
    for value in reading.inputs:
        yield from (item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Node))
