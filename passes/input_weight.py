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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.graph import Param
from qfx.graph.attributes import parent_of, submodule
from qfx.graph.provenance import describe
from qfx.nn import intrinsic
from qfx.observers import MinMaxObserver
from qfx.observers.equalization import (
    EqualizationQConfig,
    WeightEqualizationObserver,
    calculate_equalization_scale,
)
from qfx.passes.observe import KEY, watching
from qfx.passes.pipeline import Context

EQUALIZES = "qfx_equalizes"
"""Metadata of a node that watches the columns of an input: name of the layer."""

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
FUSED = (intrinsic.LinearReLU, intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d)
FUNCTIONS = (F.linear, F.conv1d, F.conv2d, F.conv3d)


def supports(node: Node, gm: GraphModule) -> bool:
    """Whether a node is a layer that can be equalized: it has one column of weights for each column of its input."""
    if node.op == "call_function":
        return node.target in FUNCTIONS
    if node.op != "call_module":
        return False
    module: Any = submodule(gm, str(node.target))
    layer = module[0] if isinstance(module, FUSED) else module
    return type(layer) in LAYERS and getattr(layer, "groups", 1) == 1


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
    gm, found, refused = context.rewriter.gm, dict[str, Any](), list[str]()
    for node in list(gm.graph.nodes):
        config = config_of(node) if node in weighted and supports(node, gm) else None
        if config is None:
            continue
        rounded = node.args[0]
        weight: Any = node.args[1] if node.op == "call_function" else None
        observed = isinstance(rounded, Node) and KEY in rounded.meta
        alone = weight.users.keys() == {node} if weight is not None else context.rewriter.sole_caller(str(node.target))
        if not observed or not alone or not _is_alone(context, rounded, node):
            refused.append(describe(node))
            continue
        _watch(context, rounded, config.input_activation(), node)
        if weight is not None and KEY in weight.meta:
            _watch(context, weight, config.weight(), node)
        found[node.name] = config.weight
    if refused:
        warn(
            f"{len(refused)} layers cannot be equalized, their input or weight is read by others too: "
            f"{', '.join(refused[:5])}. Leave them out of the equalization config"
        )
    return found


def _watch(context: Context, rounded: Any, watcher: nn.Module, layer: Node) -> None:
    """Have a value watched before it is observed."""
    gm, value = context.rewriter.gm, rounded.args[0]
    name = f"{value.name}_equalization_process_0"
    gm.add_module(name, watcher)
    with gm.graph.inserting_before(rounded):
        made = gm.graph.create_node("call_module", name, (value,), {}, name)
    made.meta.update({key: found for key, found in value.meta.items() if key == "qfx_origins"})
    made.meta[EQUALIZES] = layer.name
    rounded.replace_input_with(value, made)
    context.view.forget(rounded)


def _unwatch(context: Context, watcher: Node) -> None:
    (rounded,) = watcher.users
    value: Any = watcher.args[0]
    rounded.replace_input_with(watcher, value)
    context.view.forget(rounded)
    path = str(watcher.target)
    context.view.forget(watcher, erased=True)
    context.rewriter.gm.graph.erase_node(watcher)
    delattr(context.rewriter.gm, path)


def _is_alone(context: Context, rounded: Any, layer: Node) -> bool:
    """Whether a layer is the only one that reads its input, and the observer watches nothing else."""
    value: Any = rounded.args[0]
    observer = watching(context.view.module(str(rounded.target)))
    alone = list(rounded.users) == [layer] and list(value.users) == [rounded]
    return alone and getattr(observer, "values", 1) == 1


@dataclass(slots=True)
class _Layer:
    """A layer to equalize: the node that watches its columns, the one that observes its input, itself."""

    watcher: Node
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
    gm = context.rewriter.gm
    layers: dict[Node, _Layer] = {}
    owned: set[str] = set()
    for watcher in [node for node in gm.graph.nodes if EQUALIZES in node.meta]:
        observer: Any = context.view.module(str(watcher.target))
        if isinstance(observer, WeightEqualizationObserver):
            _unwatch(context, watcher)  # the weight is asked again below, whether it is a module's or not
    for watcher in [node for node in gm.graph.nodes if EQUALIZES in node.meta]:
        (rounded,) = watcher.users
        (node,) = rounded.users
        observer = context.view.module(str(watcher.target))
        weight, of_weight = _weight(context, node), weights[watcher.meta[EQUALIZES]]()
        of_weight(weight)
        layers[node] = _Layer(watcher, rounded, node, weight, calculate_equalization_scale(observer, of_weight))
    changed = [layer for layer in layers.values() if layer.factors.numel() > 1]
    for layer in changed:
        layer.weight = layer.weight * _along(layer.factors.reciprocal(), layer.weight, 1)
    products = []
    for layer in changed:
        before = _source(context, layer, layers)
        if before is None:
            products.append(_multiply(context, layer))
        else:
            before.weight = before.weight * _along(layer.factors, before.weight, 0)
            _scale_bias(context, before.node, layer.factors, owned)
        _rescale(context, layer)
    for layer in layers.values():
        _put(context, layer, qconfigs, owned)
        _unwatch(context, layer.watcher)
    return products


def _along(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    return factors.reshape([-1 if each == axis else 1 for each in range(weight.dim())])


def _inner(module: Any) -> Any:
    return module[0] if isinstance(module, FUSED) else module


def _weight(context: Context, node: Node) -> Tensor:
    if node.op == "call_module":
        found: Tensor = _inner(context.view.module(str(node.target))).weight.detach()
        return found
    value = _constant_behind(context, node.args[1])
    if value is None:
        raise ConfigError(f"the weight of {describe(node)} is computed, and cannot be equalized; leave the layer out")
    return value.tensor.detach()


def _constant_behind(context: Context, node: Any) -> Param | None:
    """The constant a value is, through the observer of it."""
    while isinstance(node, Node) and KEY in node.meta:
        node = node.args[0]
    value = context.view.value(node)
    return value if isinstance(value, Param) else None


def _source(context: Context, layer: _Layer, layers: Mapping[Node, _Layer]) -> _Layer | None:
    """The layer whose result is this one's input, at most a relu between them; None where anything else is."""
    value: Any = layer.watcher.args[0]
    while isinstance(value, Node) and len(value.users) == 1 and context.view.read(value).op is ops.relu:
        value = value.args[0]
    return layers.get(value) if isinstance(value, Node) and len(value.users) == 1 else None


def _multiply(context: Context, layer: _Layer) -> str:
    g, value = context.rewriter, layer.watcher.args[0]
    observer: Any = context.view.module(str(layer.watcher.target))
    observer = copy.deepcopy(observer)
    observer.set_equalization_scale(layer.factors)
    assert isinstance(value, Node)
    with g.at(layer.watcher):
        scale = g.attribute(f"{value.name}_equalization_scale0", observer.equalization_scale.detach().clone())
        made = g.call(torch.mul, value, scale)
    layer.watcher.replace_input_with(value, made)
    return made.name


def _scale_bias(context: Context, node: Node, factors: Tensor, owned: set[str]) -> None:
    if node.op == "call_module":
        layer = _inner(_own(context, node, owned))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach() * factors, requires_grad=layer.bias.requires_grad)
        return
    position = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    bias = _constant_behind(context, position)
    if isinstance(position, Node) and bias is not None:
        stem = f"{bias.fqn.replace('.', '_')}_equalized"
        with context.rewriter.at(node):
            scaled = context.rewriter.attribute(stem, bias.tensor.detach() * factors)
        node.replace_input_with(position, scaled)
        context.view.forget(node)


def _own(context: Context, node: Node, owned: set[str]) -> Any:
    """The module a node calls, as a copy that belongs to this graph alone; `owned` has the paths of those made."""
    path = str(node.target)
    module: Any = context.view.module(path)
    if path not in owned:
        owned.add(path)
        module = copy.deepcopy(module)
        owner, name = parent_of(context.rewriter.gm, path)
        owner._modules[name] = module
        context.view.forget_module(path)
        context.view.forget(node)
    return module


def _rescale(context: Context, layer: _Layer) -> None:
    """Let the observer of the input have the range of the scaled one."""
    columns: Any = copy.deepcopy(context.view.module(str(layer.watcher.target)))
    columns.set_equalization_scale(layer.factors)
    low, high = columns.calculate_scaled_minmax()
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
    owner, name = parent_of(context.rewriter.gm, path)
    owner._modules[name] = observer
    context.view.forget_module(path)


def _put(context: Context, layer: _Layer, qconfigs: Mapping[str, Any], owned: set[str]) -> None:
    """Give a layer its equalized weight."""
    node = layer.node
    if node.op == "call_module":
        inner = _inner(_own(context, node, owned))
        inner.weight = nn.Parameter(layer.weight, requires_grad=inner.weight.requires_grad)
        return
    g, old = context.rewriter, node.args[1]
    assert isinstance(old, Node)
    value = _constant_behind(context, old)
    assert value is not None
    with g.at(old if KEY in old.meta else node):
        made = g.attribute(f"{value.fqn.replace('.', '_')}_equalized", layer.weight)
    if KEY not in old.meta:
        node.replace_input_with(old, made)
    else:
        before: Any = old.args[0]
        old.replace_input_with(before, made)
        path = str(old.target)
        owner, name = parent_of(g.gm, path)
        if node.name in qconfigs:  # not left out after all
            owner._modules[name] = qconfigs[node.name].weight()  # that of the float weight has seen another
            context.view.forget_module(path)
        context.view.forget(old)
    context.view.forget(node)
