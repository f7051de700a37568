"""The steps of input-weight equalization by their old names (``fx._equalize``), for whoever takes them one by one.

They change a prepared model in place. `convert_fx` does not use them: see `qfx.passes.input_weight`. Observers of
columns and of whole values are found in either order, before or behind each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.compat.private.equalization import node_supports_equalization, reshape_scale
from qfx.compat.private.nodes import get_new_attr_name_with_prefix
from qfx.errors import ConfigError
from qfx.fake_quantize import FakeQuantizeBase
from qfx.observers import ObserverBase
from qfx.observers.equalization import (
    InputEqualizationObserver,
    WeightEqualizationObserver,
    calculate_equalization_scale,
)
from qfx.passes.equalizable import layer_in
from qfx.spellings import calls
from qfx.utilities import getattr_from_fqn

Modules = dict[str, nn.Module]


# -- looking around ------------------------------------------------------------------------------------------------
def get_op_node_and_weight_eq_obs(
    input_eq_obs_node: Node, model: GraphModule, modules: Modules
) -> tuple[Node | None, WeightEqualizationObserver | None]:
    """The layer behind an observer of columns, and an observer for the columns of its weight.

    Args:
        input_eq_obs_node: calls an input equalization observer.
        model: a prepared model; it knows how the weights of modules are observed.
        modules: its modules, by path.

    Returns:
        Two Nones where no layer that can be equalized reads the value. The observer of a module's weight is a new one
        that has seen nothing, that of a weight in the graph the one there.
    """
    op = next((node for node in _after(input_eq_obs_node, modules) if node_supports_equalization(node, modules)), None)
    if op is None:
        return None, None
    if op.op == "call_module":
        of_weights: dict[str, Any] = getattr(model, "plan", {}).get("columns", {})
        return (op, of_weights[op.name]()) if op.name in of_weights else (None, None)
    watched = maybe_get_weight_eq_obs_node(op, modules)
    found: Any = None if watched is None else modules[str(watched.target)]
    return op, found


def maybe_get_weight_eq_obs_node(op_node: Node, modules: Modules) -> Node | None:
    """The node that observes the columns of a functional layer's weight; None where there is none."""
    return next((n for n in _before(_weight(op_node), modules) if _is(n, modules, WeightEqualizationObserver)), None)


def maybe_get_next_input_eq_obs(node: Node, modules: Modules) -> InputEqualizationObserver | None:
    """The observer of columns behind a layer, where its result goes to another layer that is equalized.

    At most a relu and observers are between them.

    Raises:
        ConfigError: the node is no layer that can be equalized.
    """
    if not node_supports_equalization(node, modules):
        raise ConfigError(f"{node} calls no layer that can be equalized")
    while len(node.users) == 1:
        (reader,) = node.users
        if _is(reader, modules, InputEqualizationObserver):
            found: Any = modules[str(reader.target)]
            return found  # type: ignore[no-any-return]
        if not (_is_observer(reader, modules) or _is_relu(reader, modules)):
            return None
        node = reader
    return None


def maybe_get_next_equalization_scale(node: Node, modules: Modules) -> Tensor | None:
    """The factors of the layer behind a layer; None where it has none."""
    behind = maybe_get_next_input_eq_obs(node, modules)
    if behind is None or behind.equalization_scale.nelement() == 1:
        return None
    return behind.equalization_scale


# -- scaling -------------------------------------------------------------------------------------------------------
def scale_input_observer(node: Node, modules: Modules) -> None:
    """Give the observer of a value the range its columns have once they are scaled.

    Args:
        node: calls the input equalization observer of that value.
        modules: the model's, by path.
    """
    columns: Any = modules[str(node.target)]
    beside = next((n for n in (*_before(node.args[0], modules), *_after(node, modules)) if _is_range(n, modules)), None)
    low, high = columns.calculate_scaled_minmax()
    if beside is None or low is None:
        return
    observer: Any = modules[str(beside.target)]
    observer = getattr(observer, "activation_post_process", observer)
    observer.min_val, observer.max_val = low, high


def scale_weight_node(
    node: Node, modules: Modules, equalization_scale: Tensor, next_equalization_scale: Tensor | None
) -> None:
    """Divide the columns of a module's weight by its factors, and multiply its rows and bias with those of the next.

    Args:
        node: calls the layer, fused with its relu or not.
        modules: the model's, by path.
        equalization_scale: its factors.
        next_equalization_scale: those of the layer behind; None for none.
    """
    layer: Any = layer_in(modules[str(node.target)])
    if layer is None:
        raise ConfigError(f"{node} calls no layer that can be equalized")
    layer.weight = nn.Parameter(_scaled(layer.weight, equalization_scale, next_equalization_scale))
    if layer.bias is not None and next_equalization_scale is not None:
        layer.bias = nn.Parameter(layer.bias.detach() * next_equalization_scale.reshape(-1))


def scale_weight_functional(
    op_node: Node,
    model: GraphModule,
    modules: Modules,
    equalization_scale: Tensor,
    next_equalization_scale: Tensor | None,
) -> None:
    """The same for a layer whose weight and bias are values of the graph."""
    weight = _constant(_weight(op_node), modules)
    if weight is None:
        raise ConfigError(f"the weight of {op_node} is computed, and cannot be equalized")
    _set(model, weight, _scaled(_get(model, weight), equalization_scale, next_equalization_scale))
    bias = _constant(op_node.args[2] if len(op_node.args) > 2 else op_node.kwargs.get("bias"), modules)
    if bias is not None and next_equalization_scale is not None:
        _set(model, bias, _get(model, bias) * next_equalization_scale.reshape(-1))


def clear_weight_quant_obs_node(op_node: Node, modules: Modules) -> None:
    """Let the observer of a functional layer's weight forget what it saw."""
    for node in _before(_weight(op_node), modules):
        if _is_range(node, modules):
            observer: Any = modules[str(node.target)]
            getattr(observer, "activation_post_process", observer).reset_min_max_vals()


def remove_node(model: GraphModule, node: Node, prev_node: Node) -> None:
    """Let the readers of a node read another, and take the node away."""
    node.replace_all_uses_with(prev_node)
    model.graph.erase_node(node)


# -- all of it -----------------------------------------------------------------------------------------------------
def update_obs_for_equalization(model: GraphModule, modules: Modules) -> dict[str, WeightEqualizationObserver]:
    """Work out the factors of every layer whose columns were observed, and tell both its observers.

    Returns:
        The observer of each layer's weight, by the name of the layer's node.
    """
    found: dict[str, WeightEqualizationObserver] = {}
    for node in model.graph.nodes:
        if not _is(node, modules, InputEqualizationObserver):
            continue
        columns: Any = modules[str(node.target)]
        op, of_weight = get_op_node_and_weight_eq_obs(node, model, modules)
        if op is None or of_weight is None:
            continue
        if op.op == "call_module":
            of_weight(layer_in(modules[str(op.target)]).weight.detach())
        factors = calculate_equalization_scale(columns, of_weight)
        columns.set_equalization_scale(factors)
        of_weight.set_equalization_scale(factors)
        found[op.name] = of_weight
    return found


def convert_eq_obs(
    model: GraphModule, modules: Modules, weight_eq_obs_dict: dict[str, WeightEqualizationObserver]
) -> None:
    """Scale inputs, weights and ranges by the factors that were worked out, and take the observers of columns away.

    An input is multiplied where no layer comes before it; where one does, its weight and bias are.

    Args:
        model: a prepared model; changed.
        modules: its modules, by path.
        weight_eq_obs_dict: what `update_obs_for_equalization` returned.
    """
    layers = [node for node in model.graph.nodes if node.name in weight_eq_obs_dict]
    absorbed = {maybe_get_next_input_eq_obs(node, modules) for node in layers}
    for op in layers:
        factors = weight_eq_obs_dict[op.name].equalization_scale
        behind = maybe_get_next_equalization_scale(op, modules)
        if op.op == "call_module":
            scale_weight_node(op, modules, factors, behind)
        else:
            clear_weight_quant_obs_node(op, modules)
            scale_weight_functional(op, model, modules, factors, behind)
            _observe_weight(op, model, modules)
    for node in list(model.graph.nodes):
        value: Any = node.args[0] if node.args else None
        if _is(node, modules, WeightEqualizationObserver):
            remove_node(model, node, value)
        elif _is(node, modules, InputEqualizationObserver):
            columns: Any = modules[str(node.target)]
            if columns.equalization_scale.nelement() > 1:
                scale_input_observer(node, modules)
                if columns not in absorbed:
                    value = _multiply(model, node, columns.equalization_scale)
            remove_node(model, node, value)
    known: Any = getattr(model, "plan", None)
    if known is not None:
        model.__dict__["plan"] = {**known, "columns": {}}  # it is done; converting would do it again
    model.recompile()


def _multiply(model: GraphModule, node: Node, factors: Tensor) -> Node:
    value: Any = node.args[0]
    name = get_new_attr_name_with_prefix(f"{value.name}_equalization_scale")(model)
    model.register_buffer(name, factors.detach().clone())
    with model.graph.inserting_before(node):
        scale = model.graph.get_attr(name)
        return model.graph.call_function(torch.mul, (value, scale))


def _observe_weight(op: Node, model: GraphModule, modules: Modules) -> None:
    """What observes a weight in the graph runs with the model; converting asks it without another batch."""
    weight = _constant(_weight(op), modules)
    for node in _before(_weight(op), modules):
        if weight is not None and _is_range(node, modules):
            modules[str(node.target)](_get(model, weight))


def _scaled(weight: Tensor, factors: Tensor, behind: Tensor | None) -> Tensor:
    made = weight.detach()
    if factors.nelement() > 1:
        made = made * reshape_scale(factors.reshape(-1).reciprocal(), 1, made)
    return made if behind is None else made * reshape_scale(behind.reshape(-1), 0, made)


# -- nodes ---------------------------------------------------------------------------------------------------------
def _is(node: Any, modules: Modules, kind: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_module" and isinstance(modules[str(node.target)], kind)


def _is_range(node: Any, modules: Modules) -> bool:
    return _is(node, modules, (ObserverBase, FakeQuantizeBase))


def _is_observer(node: Any, modules: Modules) -> bool:
    return _is_range(node, modules) or _is(node, modules, (InputEqualizationObserver, WeightEqualizationObserver))


def _is_relu(node: Node, modules: Modules) -> bool:
    if node.op == "call_module":
        return _is(node, modules, nn.ReLU)
    return any(spelling.op is ops.relu for spelling in calls(node.target))


def _weight(op: Node) -> Any:
    return op.args[1] if len(op.args) > 1 else op.kwargs.get("weight")


def _before(value: Any, modules: Modules) -> Iterator[Node]:
    """The observers a value comes through, the last one first."""
    while _is_observer(value, modules):
        yield value
        value = value.args[0]


def _after(node: Node, modules: Modules) -> Iterator[Node]:
    """The readers of a value, and those behind observers of it."""
    for reader in node.users:
        yield reader
        if _is_observer(reader, modules):
            yield from _after(reader, modules)


def _constant(value: Any, modules: Modules) -> Node | None:
    """The attribute a value is, behind its observers."""
    while _is_observer(value, modules):
        value = value.args[0]
    return value if isinstance(value, Node) and value.op == "get_attr" else None


def _get(model: GraphModule, node: Node) -> Tensor:
    found: Tensor = getattr_from_fqn(model, str(node.target)).detach()
    return found


def _set(model: GraphModule, node: Node, value: Tensor) -> None:
    owner, _, name = str(node.target).rpartition(".")
    setattr(model.get_submodule(owner), name, nn.Parameter(value))


__all__ = [
    "clear_weight_quant_obs_node",
    "convert_eq_obs",
    "get_op_node_and_weight_eq_obs",
    "maybe_get_next_equalization_scale",
    "maybe_get_next_input_eq_obs",
    "maybe_get_weight_eq_obs_node",
    "remove_node",
    "scale_input_observer",
    "scale_weight_functional",
    "scale_weight_node",
    "update_obs_for_equalization",
]
