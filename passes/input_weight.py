"""Input-weight equalization: columns of a layer's input and of its weight are scaled against each other.

`watch_columns` puts an observer of the columns before the observer of each layer's input; `equalize_columns` works out
the factors, puts them into the weights, and multiplies the input by its factors: in the weight of the layer it comes
from where that gives it, else in a product of its own. `qfx.observers.equalization` has the arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from qfx import ops
from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.graph import GraphView, Param
from qfx.graph.provenance import describe
from qfx.observers import MinMaxObserver
from qfx.observers.equalization import (
    EqualizationQConfig,
    InputEqualizationObserver,
    WeightEqualizationObserver,
    calculate_equalization_scale,
)
from qfx.passes.equalizable import along, layer_in
from qfx.passes.observe import KEY, constant_behind, stop_watching, watching
from qfx.passes.pipeline import Context

EQUALIZES = "qfx_equalizes"
"""Metadata of a node that watches the columns of an input or a weight: name of the layer."""

_FUNCTIONS = (ops.linear, ops.conv1d, ops.conv2d, ops.conv3d)
_POSITIONS = {"input": 0, "weight": 1, "bias": 2}


def watch_columns(
    context: Context, config_of: Callable[[Node], EqualizationQConfig | None], weighted: set[Node]
) -> dict[str, Any]:
    """Watch the columns of the inputs of layers.

    Args:
        context: a graph with its observers.
        config_of: how a layer is to be equalized; None for not at all.
        weighted: the layers that are quantized.

    Returns:
        Name of the layer -> what makes the observer of its weight.
    """
    found, refused = dict[str, Any](), list[str]()
    for node in list(context.rewriter.gm.graph.nodes):
        config = config_of(node) if node in weighted and _is_layer(context.view, node) else None
        if config is None:
            continue
        why = _refusal(context, node)
        if why:
            refused.append(f"{describe(node)} ({why})")
            continue
        _watch(context, _argument(node, "input"), config.input_activation(), node)
        weight = _argument(node, "weight")
        if weight is not None and KEY in weight.meta:
            _watch(context, weight, config.weight(), node)
        found[node.name] = config.weight
    if refused:
        warn(
            f"{len(refused)} layers cannot be equalized: {', '.join(refused[:5])}. Leave them out of the equalization "
            "config"
        )
    return found


def _is_layer(view: GraphView, node: Node) -> bool:
    if node.op == "call_module":
        return layer_in(view.module(str(node.target))) is not None
    return view.read(node).op in _FUNCTIONS


def _refusal(context: Context, node: Node) -> str:
    """Why a layer cannot be equalized; empty where it can."""
    view, rounded, weight = context.view, _argument(node, "input"), _argument(node, "weight")
    if node.op == "call_module":
        groups = getattr(layer_in(view.module(str(node.target))), "groups", 1)
        alone = context.rewriter.sole_caller(str(node.target))
    else:
        groups = view.read(node).attrs.get("groups", 1)
        alone = weight.users.keys() == {node}
    if groups != 1:
        return "its groups share no column of the weight"
    if not isinstance(rounded, Node) or KEY not in rounded.meta:
        return "its input is not observed"
    observer = watching(view.module(str(rounded.target)))
    # Others may read the value itself: it is scaled on its way to this layer only.
    alone = alone and list(rounded.users) == [node]
    return "" if alone and getattr(observer, "values", 1) == 1 else "others read its input or weight"


def _argument(node: Node, name: str) -> Any:
    """An argument of a layer, by position or keyword; a module has but its input."""
    position = _POSITIONS[name]
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _watch(context: Context, rounded: Node, watcher: nn.Module, layer: Node) -> None:
    """Have a value watched before it is observed."""
    gm, value = context.rewriter.gm, rounded.args[0]
    assert isinstance(value, Node)
    number = 0
    while hasattr(gm, name := f"{value.name}_equalization_process_{number}"):
        number += 1
    gm.add_module(name, watcher)
    with gm.graph.inserting_before(rounded):
        made = gm.graph.create_node("call_module", name, (value,), {}, name)
    if "qfx_origins" in value.meta:
        made.meta["qfx_origins"] = value.meta["qfx_origins"]
    made.meta[EQUALIZES] = layer.name
    rounded.replace_input_with(value, made)
    context.view.forget(rounded)


@dataclass(slots=True)
class _Layer:
    """A layer to equalize.

    Attributes:
        watcher: the node that watches the columns of its input, and `columns`, its observer, which knows the factors.
        rounded: the node that observes the input.
        node: itself, and `weight`, what its weight becomes.
        factors: of each column; ones where nothing was seen.
    """

    watcher: Node
    columns: InputEqualizationObserver
    rounded: Node
    node: Node
    weight: Tensor
    factors: Tensor


def equalize_columns(context: Context, weights: Mapping[str, Any], qconfigs: Mapping[str, Any]) -> list[str]:
    """Equalize the layers whose columns were watched, and take the watching nodes away.

    Args:
        context: a copy of the prepared graph, its observers still in it; modules that are changed are copied first.
        weights: what `watch_columns` gave.
        qconfigs: configuration of each quantized layer, by name.

    Returns:
        Names of the products that scale inputs.
    """
    layers = _layers(context, weights)
    owned: set[str] = set()
    changed = [layer for layer in layers.values() if layer.factors.numel() > 1]
    for layer in changed:
        layer.weight = layer.weight * along(layer.factors.reciprocal(), layer.weight, 1)
    products = []
    for layer in changed:
        before = _source(context, layer, layers)
        if before is None:
            products.append(_multiply(context, layer))
        else:
            before.weight = before.weight * along(layer.factors, before.weight, 0)
            _scale_bias(context, before.node, layer.factors, owned)
        if layer.columns.minmax()[0].numel():
            _rescale(context, layer)
    for layer in layers.values():
        _put(context, layer, qconfigs, owned)
        watched: Any = layer.watcher.args[0]
        stop_watching(context, layer.watcher, watched)
    return products


def _layers(context: Context, weights: Mapping[str, Any]) -> dict[Node, _Layer]:
    """The watched layers and their factors; what watches weights is gone after it."""
    found: dict[Node, _Layer] = {}
    watchers = [node for node in context.rewriter.gm.graph.nodes if EQUALIZES in node.meta]
    observers: dict[Node, Any] = {node: context.view.module(str(node.target)) for node in watchers}
    for watcher in watchers:
        if isinstance(observers[watcher], WeightEqualizationObserver):
            value: Any = watcher.args[0]
            stop_watching(context, watcher, value)  # the weight is asked below, whether it is a module's or not
    for watcher in watchers:
        columns = copy.deepcopy(observers[watcher])
        if not isinstance(columns, InputEqualizationObserver):
            continue
        (rounded,) = watcher.users
        (node,) = rounded.users
        weight, of_weight = _weight(context, node), weights[watcher.meta[EQUALIZES]]()
        of_weight(weight)
        factors = calculate_equalization_scale(columns, of_weight)
        if columns.minmax()[0].numel():
            columns.set_equalization_scale(factors)
        else:  # nothing was seen: the graph is the one it would have been, and its numbers are what they were
            factors = torch.ones(weight.shape[1])
            columns.equalization_scale = factors.reshape(-1, *[1] * (weight.dim() - 2))
        found[node] = _Layer(watcher, columns, rounded, node, weight, factors)
    return found


def _weight(context: Context, node: Node) -> Tensor:
    if node.op == "call_module":
        found: Tensor = layer_in(context.view.module(str(node.target))).weight.detach()
        return found
    value = constant_behind(context.view, _argument(node, "weight"))
    if value is None:
        raise ConfigError(f"the weight of {describe(node)} is computed, and cannot be equalized; leave the layer out")
    return value.tensor.detach()


def _source(context: Context, layer: _Layer, layers: Mapping[Node, _Layer]) -> _Layer | None:
    """The layer whose result is this one's input, at most a relu between them; None where anything else is."""
    value: Any = layer.watcher.args[0]
    while isinstance(value, Node) and len(value.users) == 1 and context.view.read(value).op is ops.relu:
        value = value.args[0]
    return layers.get(value) if isinstance(value, Node) and len(value.users) == 1 else None


def _multiply(context: Context, layer: _Layer) -> str:
    g, value = context.rewriter, layer.watcher.args[0]
    assert isinstance(value, Node)
    with g.at(layer.watcher):
        scale = g.attribute(f"{value.name}_equalization_scale0", layer.columns.equalization_scale.detach().clone())
        made = g.call(torch.mul, value, scale)
    layer.watcher.replace_input_with(value, made)
    return made.name


def _scale_bias(context: Context, node: Node, factors: Tensor, owned: set[str]) -> None:
    if node.op == "call_module":
        layer = layer_in(_own(context, node, owned))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach() * factors, requires_grad=layer.bias.requires_grad)
        return
    old = _argument(node, "bias")
    bias = constant_behind(context.view, old)
    if isinstance(old, Node) and bias is not None:
        _replace(context, node, old, bias, bias.tensor.detach() * factors)


def _replace(context: Context, reader: Node, old: Node, param: Param, value: Tensor) -> None:
    """Let a node read an equalized constant instead of the one it was made of."""
    g = context.rewriter
    with g.at(reader):
        made = g.attribute(f"{param.fqn.replace('.', '_')}_equalized", value)
    reader.replace_input_with(old, made)
    context.view.forget(reader)


def _own(context: Context, node: Node, owned: set[str]) -> Any:
    """The module a node calls, as a copy that belongs to this graph alone; `owned` has the paths of those made."""
    path = str(node.target)
    module: Any = context.view.module(path)
    if path not in owned:
        owned.add(path)
        module = copy.deepcopy(module)
        context.rewriter.install(path, module)
        context.view.forget(node)
    return module


def _rescale(context: Context, layer: _Layer) -> None:
    """Let the observer of the input have the range of the scaled one."""
    low, high = layer.columns.calculate_scaled_minmax()
    path = str(layer.rounded.target)
    observer: Any = copy.deepcopy(context.view.module(path))
    inner = watching(observer)
    if type(inner).calculate_qparams is not MinMaxObserver.calculate_qparams:
        # Counts by bin cannot be scaled by column; the ends of the range are known.
        ends = MinMaxObserver(inner.dtype, inner.qscheme, quant_min=inner.quant_min, quant_max=inner.quant_max)
        for name in ("seen_shape", "seen_shapes", "seen_float32", "values", "batches"):
            setattr(ends, name, getattr(inner, name))
        if inner is observer:
            observer = ends
        else:
            observer.activation_post_process = ends
        inner = ends
    inner.min_val.copy_(low)
    inner.max_val.copy_(high)
    context.rewriter.install(path, observer)


def _put(context: Context, layer: _Layer, qconfigs: Mapping[str, Any], owned: set[str]) -> None:
    """Give a layer its equalized weight."""
    node = layer.node
    if node.op == "call_module":
        inner = layer_in(_own(context, node, owned))
        inner.weight = nn.Parameter(layer.weight, requires_grad=inner.weight.requires_grad)
        return
    rounded = _argument(node, "weight")
    value = constant_behind(context.view, rounded)
    assert isinstance(rounded, Node)
    assert value is not None
    if KEY not in rounded.meta:
        _replace(context, node, rounded, value, layer.weight)
        return
    constant: Any = rounded.args[0]
    _replace(context, rounded, constant, value, layer.weight)
    if node.name in qconfigs:  # not left out after all
        # The observer there has seen the weight as it was
        context.rewriter.install(str(rounded.target), qconfigs[node.name].weight())
    context.view.forget(node)
