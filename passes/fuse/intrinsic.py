"""Merge a module and the relu after it into one ``nn.intrinsic`` container, where a kernel does both in one go.

Only ops spelled as modules, and what the mapping says of the module counts, not of its relu. A functional convolution
keeps its function, and its relu is absorbed at lowering.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from torch import nn

from qfx.graph import GraphView, Reading
from qfx.nn import intrinsic
from qfx.ops import Op
from qfx.passes.annotate.choices import configured_as
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Guard, Rule, rule
from qfx.patterns import Match, Pattern
from qfx.patterns.catalogue.weighted import bn_relu, weighted_relu
from qfx.reject import Reject
from qfx.spellings import ops_of_modules

FUSED: dict[type[nn.Module], type[nn.Sequential]] = {
    nn.Conv1d: intrinsic.ConvReLU1d,
    nn.Conv2d: intrinsic.ConvReLU2d,
    nn.Conv3d: intrinsic.ConvReLU3d,
    nn.Linear: intrinsic.LinearReLU,
    nn.BatchNorm2d: intrinsic.BNReLU2d,
    nn.BatchNorm3d: intrinsic.BNReLU3d,
}


def called_once(name: str, kinds: Container[type[nn.Module]] | None = FUSED) -> Guard:
    """Guard: the named reading is a module (of one of these classes, if they are given) that is called here alone."""

    def called_once(m: Match) -> bool | Reject:
        reading = getattr(m, name)
        if reading.dialect != "module":
            return Reject(f"{reading.node} is a function, not a module", reading.node)
        module = m.view.module(str(reading.node.target))
        if kinds is not None and type(module) not in kinds:
            return Reject(f"no fused module for {type(module).__name__}", reading.node)
        calls = m.view.callers(str(reading.node.target))
        return calls == 1 or Reject(f"module {reading.node.target} is called {calls} times", reading.node)

    return called_once


def merged_with(view: GraphView, module: nn.Module, relu: Reading) -> nn.Sequential:
    """The container of a module and a relu behind it, which may be a function."""
    own = relu.dialect == "module"
    fused = FUSED[type(module)](module, view.module(str(relu.node.target)) if own else nn.ReLU().train(module.training))
    fused.training = module.training
    if "qconfig" in module.__dict__:
        fused.__dict__["qconfig"] = module.__dict__["qconfig"]
    return fused


def _fuse(name: str, pattern: Pattern) -> Rule:
    @rule(pattern, where=called_once(name))
    def fuse_relu(m: Match, g: Rewriter) -> Any:
        inner = getattr(m, name).node
        fused = merged_with(g.view, g.view.module(str(inner.target)), m.relu)
        return configured_as(g.module(fused, m.x, at=str(inner.target)), inner)

    return fuse_relu


def _fusable() -> tuple[Op, ...]:
    return tuple(op for op in ops_of_modules(FUSED) if op.name != "batch_norm")


FUSE_RELU = (*(_fuse("weighted", weighted_relu(op)) for op in _fusable()), _fuse("bn", bn_relu))
