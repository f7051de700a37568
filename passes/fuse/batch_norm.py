"""Fold a batch norm in eval mode into the weight and bias of what feeds it; the arithmetic is `qfx.nn.folding`."""

from __future__ import annotations

import operator

import torch

from qfx import ops
from qfx.graph import GraphView, Param, Reading
from qfx.graph.ranks import examples_given
from qfx.nn.folding import fold
from qfx.ops import Op
from qfx.passes.annotate.choices import configured_as
from qfx.passes.rewriter import NewParam, Rewriter
from qfx.passes.rule import Rule, owned, rule
from qfx.patterns import Match
from qfx.patterns.catalogue.weighted import TRANSPOSED, WEIGHTED, weighted_bn
from qfx.reject import Reject


def _constant(*names: str):  # type: ignore[no-untyped-def]
    def constant(m: Match) -> bool | Reject:
        for name in names:
            value = getattr(m, name)
            if value is not None and not isinstance(value, Param):
                return Reject(f"{name} is computed ({value!r}), not a constant", m.anchor)
        return True

    return constant


def normalizes_outputs(m: Match) -> bool | Reject:
    """Guard: the batch norm of a match normalizes the layer's output channels."""
    return normalizes(m.view, m.weighted, m.bn)


def _may_normalize_outputs(m: Match) -> bool | Reject:
    return may_normalize(m.view, m.weighted, m.bn)


def may_normalize(view: GraphView, layer: Reading, bn: Reading) -> bool | Reject:
    """As `normalizes`, but True where nobody told what the model is called with: there `ask` has the graph find out."""
    return True if is_to_ask(view, layer, bn) else normalizes(view, layer, bn)


def is_to_ask(view: GraphView, layer: Reading, bn: Reading) -> bool:
    """Whether only the number of axes of a linear layer's input, which nobody told, is missing to fold."""
    if layer.op is not ops.linear or view.rank(layer.inputs[0]) is not None or examples_given(view.gm.graph.nodes):
        return False
    w, mean = layer.input("w"), bn.input("mean")
    return isinstance(w, Param) and isinstance(mean, Param) and bool(w.tensor.shape[0] == mean.tensor.numel())


def ask(layer: Reading, bn: Reading, g: Rewriter) -> None:
    """Have the graph refuse an input in whose product batch norm would not have normalized the features."""
    two = g.call(operator.eq, g.method("dim", layer.inputs[0]), 2)
    said = (
        f"{layer.node} and {bn.node} were folded into one layer for inputs of two axes, batch and features; in "
        "others batch norm normalizes another axis: give fuse_fx the example_inputs, and it leaves them apart"
    )
    g.call(torch._assert, two, said)


def normalizes(view: GraphView, layer: Reading, bn: Reading) -> bool | Reject:
    """Whether a batch norm normalizes the output channels of the layer before it.

    Of a linear layer's result batch norm takes axis 1, which has the features only where there are two axes.
    """
    if layer.op is not ops.linear:
        return True
    w, mean = layer.input("w"), bn.input("mean")
    if isinstance(w, Param) and isinstance(mean, Param) and w.tensor.shape[0] != mean.tensor.numel():
        channels, features = mean.tensor.numel(), w.tensor.shape[0]
        return Reject(f"{bn.node} normalizes {channels} channels, {layer.node} has {features} features", bn.node)
    dims = view.rank(layer.inputs[0])
    if dims == 2:
        return True
    seen = "is not known to have two axes (give example_inputs)" if dims is None else f"has {dims} axes"
    return Reject(f"the input of {layer.node} {seen}; {bn.node} normalizes axis 1", bn.node)


def _rule(op: Op) -> Rule:
    transposed = op in TRANSPOSED

    # Readers of the batch norm's own tensors do not matter: they are not changed.
    @rule(weighted_bn(op), where=(owned("w", "b"), _constant("mean", "var", "gamma", "beta"), _may_normalize_outputs))
    def fold_batch_norm(m: Match, g: Rewriter) -> object:
        tensors = {
            name: getattr(m, name).tensor if getattr(m, name) is not None else None for name in ("b", "gamma", "beta")
        }
        weight, bias = fold(
            m.w.tensor,
            tensors["b"],
            tensors["gamma"],
            tensors["beta"],
            m.mean.tensor,
            m.var.tensor,
            m.bn.attrs["eps"],
            transposed=transposed,
            groups=m.weighted.attrs.get("groups", 1),
        )
        new_weight: NewParam = g.param(weight, like=m.w)
        new_bias = g.param(bias, like=m.b) if m.b is not None else g.param(bias, name="bias", near=m.w)
        if is_to_ask(m.view, m.weighted, m.bn):
            ask(m.weighted, m.bn, g)
        folded = g.call(op, m.x, new_weight, new_bias, **m.weighted.attrs)
        return configured_as(folded, m.weighted.node)

    return fold_batch_norm


FOLD_BATCH_NORM = tuple(_rule(op) for op in WEIGHTED)
