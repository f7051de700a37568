"""Layers and calls that compute something else while training: quantizing would freeze a random or moving value."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._ops import OpOverload
from torch.fx import Node

from qfx.graph.provenance import describe
from qfx.graph.view import GraphView
from qfx.graph.walk import modules_in

_ALWAYS = (nn.modules.batchnorm._BatchNorm, nn.RReLU)
_PROBABILITY = {nn.modules.dropout._DropoutNd: "p", nn.RNNBase: "dropout", nn.MultiheadAttention: "dropout"}

_DROPOUT_FLAG = 2  # F.dropout(input, p, training, inplace)

# torch's built-in functions have no signature: where the probability stands, if there is one, and the flag.
_BUILT_IN: dict[Any, tuple[int | None, int]] = {
    **{
        getattr(torch, f"{name}{end}"): (1, 2)
        for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
        for end in ("", "_")
    },
    torch.native_dropout: (1, 2),
    torch.rrelu: (None, 3),
    torch.rrelu_: (None, 3),
    F.rrelu_: (None, 3),
}


def training_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of torch's layers that are in training mode and then compute something else."""
    for name, module in modules_in(model):
        if not module.training:
            continue
        tracks = isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats
        drops = any(isinstance(module, kind) and getattr(module, p) for kind, p in _PROBABILITY.items())
        if tracks or drops or isinstance(module, _ALWAYS):
            yield name or type(module).__name__, module


def training_calls(view: GraphView) -> Iterator[Node]:
    """Calls of functions that drop values, or normalize by the batch and move its statistics."""
    for node in view.gm.graph.nodes:
        if node.op in ("call_function", "call_method") and _trains(view, node):
            yield node


def _trains(view: GraphView, node: Node) -> bool:
    reading = view.read(node)
    name, attrs = reading.op.name, reading.attrs
    if reading.spelling is not None:
        if name == "dropout":
            return attrs["training"] is True and attrs["p"] != 0
        if name == "batch_norm":  # without running statistics it normalizes by the batch in every mode
            return attrs["training"] is True and reading.input("mean") is not None
        if name == "instance_norm":
            return attrs["use_input_stats"] is True and reading.input("mean") is not None
        return name == "scaled_dot_product_attention" and attrs["dropout_p"] != 0
    if node.op != "call_function":
        return False
    if node.target in _BUILT_IN:
        at, flag = _BUILT_IN[node.target]
        probability = 1 if at is None else _argument(node, at, "p", "dropout")
        return probability != 0 and _argument(node, flag, "training", "train") is True
    return _of_signature(node)


def stop_dropping(view: GraphView, node: Node) -> bool:
    """Switch a call of ``F.dropout`` or its kind off; false where a call is another."""
    if node.op != "call_function" or view.read(node).op.name != "dropout" or isinstance(node.target, OpOverload):
        return False
    node.args = tuple(value if at != _DROPOUT_FLAG else False for at, value in enumerate(node.args))
    if len(node.args) <= _DROPOUT_FLAG:
        node.kwargs = {**node.kwargs, "training": False}
    view.forget(node)
    return True


def _argument(node: Node, position: int, *names: str) -> Any:
    if position < len(node.args):
        return node.args[position]
    return next((node.kwargs[name] for name in names if name in node.kwargs), None)


def _of_signature(node: Node) -> bool:
    """A function of torch's with a parameter that says whether it trains, and perhaps how much it drops."""
    if not str(getattr(node.target, "__module__", "")).startswith("torch.nn.functional"):
        return False
    signature = _signature(node.target)
    if signature is None or "training" not in signature.parameters:
        return False
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError:
        return False
    bound.apply_defaults()
    probability = bound.arguments.get("dropout_p", bound.arguments.get("p", 1))
    return bound.arguments["training"] is True and probability != 0


@lru_cache(maxsize=256)
def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def shown(nodes: list[Node]) -> str:
    """Up to three calls for a message."""
    return ", ".join(map(describe, nodes[:3])) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
