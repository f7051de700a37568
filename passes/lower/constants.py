"""Constants among activations (position embeddings, layer scales) are quantized once, when the model is converted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from qfx import layout, ops
from qfx.graph import GraphView, Param
from qfx.nn.constant import QuantizedConstant
from qfx.passes.lower.codes import numbers
from qfx.passes.lower.roles import layer_of_weight
from qfx.passes.pipeline import Context
from qfx.qparams import QParams, quantize


@dataclass(frozen=True, slots=True)
class Constant:
    """A quantize of a constant: its node, the constant, its parameters."""

    node: Node
    source: Param
    scale: float
    zero_point: int
    dtype: torch.dtype

    def codes(self) -> Tensor:
        """The codes, as a plain tensor."""
        how = QParams(self.scale, self.zero_point, dtype=self.dtype)
        return quantize(self.source.tensor.detach(), how, saturate_storage=True)


def constants(view: GraphView) -> Iterator[Constant]:
    """The quantizes of constants that are read as activations, in graph order.

    A weight is not among them: it is packed from its quantize. Neither is a buffer that the model writes to.
    """
    for reading in view.find(ops.quantize):
        if reading.attrs["axis"] is not None:
            continue
        node, (source, scale, zero_point) = reading.node, reading.inputs
        if not isinstance(source, Param) or layer_of_weight(view, node) is not None or _is_written(view, source):
            continue
        yield Constant(node, source, *numbers(scale, zero_point), reading.attrs["dtype"])


def _is_written(view: GraphView, param: Param) -> bool:
    return any(view.read(reader).mutates for reader, _ in view.readers(param))


def once_each(made: Callable[[Constant], Node]) -> Callable[[Constant], Node]:
    """`made`, but the same node for the same constant in the same parameters."""
    known: dict[tuple[int, float, int], Node] = {}

    def make(constant: Constant) -> Node:
        key = (id(constant.source.tensor), constant.scale, constant.zero_point)
        if key not in known:
            known[key] = made(constant)
        return known[key]

    return make


def quantize_constants(gm: GraphModule, context: Context) -> bool:
    """Put torch's quantized tensors in the place of the quantizes of constants, unless the layout leaves them."""
    if layout.as_original:
        return False
    g = context.rewriter

    def make(constant: Constant) -> Node:
        with g.at(constant.node):
            spec = QuantizedConstant(constant.codes(), constant.scale, constant.zero_point)
            return g.packed(spec, f"{constant.source.fqn.replace('.', '_')}_quantized")

    made, found = once_each(make), list(constants(context.view))
    for constant in found:
        g.replace(constant.node, made(constant))
    return bool(found)
