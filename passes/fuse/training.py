"""Collect what training keeps apart and integers will not: modules with their batch norm and relu, in one container.

In training a batch norm follows the batches, so it cannot be folded yet; the container becomes a module that trains
with the folded weight rounded (`qfx.passes.train`).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from qfx.graph import GraphView, Reading
from qfx.nn import intrinsic
from qfx.passes.annotate.choices import configured_as
from qfx.passes.fuse.batch_norm import normalizes_outputs
from qfx.passes.fuse.intrinsic import called_once
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match, Pattern
from qfx.patterns.catalogue.weighted import training_bn
from qfx.reject import Reject
from qfx.spellings import ops_of_modules

# Module -> (its batch norm, both in one, both and a relu in one or None).
TRAINED: dict[type[nn.Module], tuple[type[nn.Module], Any, Any]] = {
    nn.Conv1d: (nn.BatchNorm1d, intrinsic.ConvBn1d, intrinsic.ConvBnReLU1d),
    nn.Conv2d: (nn.BatchNorm2d, intrinsic.ConvBn2d, intrinsic.ConvBnReLU2d),
    nn.Conv3d: (nn.BatchNorm3d, intrinsic.ConvBn3d, intrinsic.ConvBnReLU3d),
    nn.Linear: (nn.BatchNorm1d, intrinsic.LinearBn1d, None),
}


def _collectable(m: Match) -> bool | Reject:
    return collectable(m.view, m.weighted, m.bn)


def collectable(view: GraphView, layer: Reading, norm: Reading) -> bool | Reject:
    """Whether a layer and its batch norm, both modules, are of classes that are collected and can fold later."""
    weighted, bn = (view.module(str(reading.node.target)) for reading in (layer, norm))
    expected = TRAINED[type(weighted)]
    if type(bn) is not expected[0]:
        return Reject(f"{type(weighted).__name__} is collected with {expected[0].__name__}", norm.node)
    if not (getattr(bn, "affine", False) and getattr(bn, "track_running_stats", False)):
        return Reject("a batch norm without weights or running statistics cannot be folded after training", norm.node)
    if weighted.training is not bn.training:
        return Reject("the layer and its batch norm are in different modes", norm.node)
    return True


def collected(view: GraphView, layer: Reading, norm: Reading, relu: Reading | None) -> nn.Sequential:
    """The container of a layer, its batch norm and perhaps a relu, which may be a function."""
    parts = [view.module(str(reading.node.target)) for reading in (layer, norm)]
    _, together, with_relu = TRAINED[type(parts[0])]
    if relu is not None:
        together = with_relu
        parts.append(view.module(str(relu.node.target)) if relu.dialect == "module" else nn.ReLU())
    container: nn.Sequential = together(*parts).train(parts[0].training)
    return container


def _is_module(m: Match) -> bool | Reject:
    return m.bn.dialect == "module" or Reject(f"{m.bn.node} is a function, not a module", m.bn.node)


def _collect(pattern: Pattern) -> Rule:
    guards = (called_once("weighted", TRAINED), _is_module, called_once("bn", None), _collectable, normalizes_outputs)

    @rule(pattern, where=guards)
    def collect_batch_norm(m: Match, g: Rewriter) -> Any:
        node = m.weighted.node
        container = collected(g.view, m.weighted, m.bn, getattr(m, "relu", None))
        return configured_as(g.module(container, m.x, at=str(node.target)), node)

    return collect_batch_norm


# No module trains a linear layer with both a batch norm and a relu; there the relu stays by itself.
COLLECT_BATCH_NORM = tuple(_collect(training_bn(op, with_relu=op.name != "linear")) for op in ops_of_modules(TRAINED))
