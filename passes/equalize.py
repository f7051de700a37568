"""Cross-layer equalization: scale channels between layers so that their weights have ranges alike.

A relu passes positive factors through, so dividing a channel of one layer's result by a factor and multiplying the next
layer's weights for it by the same computes the same function. Factors that make both ranges equal leave quantization
per tensor the most (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
arXiv:1906.04721, section 4.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from qfx import ops
from qfx.passes.equalizable import along, layer_in
from qfx.passes.pipeline import Context

# What lies between two layers and passes a positive factor of a channel through.
_PASSES = frozenset({ops.relu, ops.leaky_relu, ops.max_pool2d, ops.avg_pool2d, ops.adaptive_avg_pool2d, ops.identity})
SWEEPS = 20
ENOUGH = 1e-3  # largest relative change of a factor after which another sweep changes nothing that matters


def equalize(context: Context, wanted: Callable[[Node], bool]) -> list[tuple[str, str]]:
    """Equalize every pair of layers of which the first is read by nothing but the second; in place.

    Args:
        context: a fused graph that owns its modules.
        wanted: whether a layer may be changed.

    Returns:
        The paths of the pairs, in graph order.
    """
    gm = context.rewriter.gm
    owners = Counter(id(p) for module in gm.modules() for p in module._parameters.values() if p is not None)
    tied = {key for key, count in owners.items() if count > 1}

    def free(node: Node) -> bool:
        layer = context.view.module(str(node.target))
        return wanted(node) and not any(id(parameter) in tied for parameter in layer.parameters())

    pairs = [pair for node in gm.graph.nodes if (pair := _pair(context, node, free)) is not None]
    for _ in range(SWEEPS):
        changes = [_equalize(first, second) for (first, _), (second, _) in pairs]
        if not changes or max(changes) < ENOUGH:
            break
    return [(one, other) for (_, one), (_, other) in pairs]


def _pair(context: Context, node: Node, wanted: Callable[[Node], bool]) -> Any:
    first = _layer(context, node, wanted)
    if first is None:
        return None
    at = node
    while len(at.users) == 1:
        (at,) = at.users
        second = _layer(context, at, wanted)
        if second is not None:
            fits = _inputs(second) == first.weight.shape[0] and (second.groups if hasattr(second, "groups") else 1) in (
                1,
                first.weight.shape[0],
            )
            return ((first, str(node.target)), (second, str(at.target))) if fits else None
        if context.view.read(at).op not in _PASSES:
            return None
    return None


def _layer(context: Context, node: Node, wanted: Callable[[Node], bool]) -> Any:
    """The layer a node calls, if it may be changed; in a fused container, the layer in it."""
    if node.op != "call_module" or not context.rewriter.sole_caller(str(node.target)) or not wanted(node):
        return None
    return layer_in(context.view.module(str(node.target)))


def _inputs(layer: Any) -> int:
    groups = getattr(layer, "groups", 1)
    return int(layer.weight.shape[1] * groups)


def _equalize(first: Any, second: Any) -> float:
    """Scale the channels between two layers once; returns how far the largest factor was from 1."""
    with torch.no_grad():
        before, after = _ranges(first.weight, 0), _ranges(second.weight, 1 if getattr(second, "groups", 1) == 1 else 0)
        factor = torch.where((before > 0) & (after > 0), (before / after).sqrt(), 1.0)
        first.weight.div_(along(factor, first.weight, 0))
        if first.bias is not None:
            first.bias.div_(factor)
        # A depthwise layer has one row of weights a channel
        second.weight.mul_(along(factor, second.weight, 1 if getattr(second, "groups", 1) == 1 else 0))
        return float((factor - 1).abs().max())


def _ranges(weight: Tensor, axis: int) -> Tensor:
    return weight.detach().abs().transpose(0, axis).flatten(1).amax(1)
