"""Layers whose inputs get their scale when the model runs, or stay float: the weights alone have one beforehand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx import dtypes
from qfx.config.observer_facts import observer_facts
from qfx.graph.copying import copied_tensor
from qfx.nn.quantized import reference
from qfx.passes.halves import cast
from qfx.passes.observe import is_dynamic
from qfx.passes.pipeline import Context
from qfx.passes.train import trained_as_float
from qfx.passes.weights import weight_qparams
from qfx.qparams import QParams

WHOLE = ("dynamic", "weight")
"""Kinds of instances with a float output, whose layer is swapped as a whole."""

REFERENCE: dict[type[nn.Module], Any] = {
    getattr(nn, name): getattr(reference, name)
    for name in ("Linear", "Embedding", "EmbeddingBag", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")
}
_SINGLE = (nn.Linear, nn.Embedding, nn.EmbeddingBag)


def reduces_range() -> bool:
    """Whether inputs quantized at run time have 7 bits, for engines that add products in 16."""
    return str(torch.backends.quantized.engine) in ("fbgemm", "x86")


def at_run_time(context: Context, node: Node, observer: Any) -> Node | None:
    """What stands in the place of an observer that needs no calibration; None for every other.

    Inputs are quantized with a scale of their own in every call. Half floats are cast, and back.
    """
    g, value = context.rewriter, node.args[0]
    if is_dynamic(observer):
        with g.at(node):
            made = g.call(torch.quantize_per_tensor_dynamic, value, observer.dtype, reduces_range())
            return g.method("dequantize", made)
    return cast(context, node) if observer.dtype is torch.float16 else None


def is_whole(instance: dict[str, Any]) -> bool:
    """Whether the layer of an instance is swapped as a whole: nothing is worked out for its weight beforehand."""
    return instance["weighted"] and (
        instance["kind"] in WHOLE or observer_facts(instance["qconfig"].weight).dtype is torch.float16
    )


def swap_layers(
    context: Context,
    instances: dict[str, dict[str, Any]],
    paths: dict[int, list[str]],
    copies: dict[int, torch.Tensor],
) -> None:
    """Put the reference form in the place of every such layer spelled as a module.

    Args:
        context: the graph under conversion.
        instances: the plan of prepare, by name of the root.
        paths: of each module, by its id.
        copies: parameters copied so far, by id of the original.
    """
    gm, made = context.rewriter.gm, set[nn.Module]()
    for node in gm.graph.find_nodes(op="call_module"):
        instance = instances.get(node.name)
        if instance is None or not is_whole(instance):
            continue
        called = context.view.module(str(node.target))
        context.view.forget(node)
        if called in made:  # called before, or under another name
            continue
        layer = _reference(called, instance["qconfig"].weight, copies)
        made.add(layer)
        for path in paths[id(called)]:
            context.rewriter.install(path, layer)


def _reference(module: Any, weight: Any, copies: dict[int, torch.Tensor]) -> Any:
    """The reference form of a layer, alone or in a container with what follows it."""
    folded = trained_as_float(module)
    trained = None if folded is None else folded[1]
    module = module if folded is None else folded[0]
    inner = module if type(module) in REFERENCE else next(iter(module.children()))
    cls = REFERENCE[type(inner)]
    if isinstance(inner, _SINGLE):
        made = cls.from_float(inner, _qparams(trained or weight(), inner.weight, trained is not None))
    else:
        named = {name: _qparams(weight(), value) for name, value in inner.named_parameters() if "weight" in name}
        made = cls.from_float(inner, named)
    made.train(inner.training)
    for name, parameter in inner._parameters.items():
        if parameter is not None:  # by its own identity: those of `made` may be new, and gone before the next is copied
            made._parameters[name] = copied_tensor(parameter, copies if folded is None else {})
    if inner is module:
        return made
    kind: Any = type(module)
    whole: Any = kind.__new__(kind)
    whole.__dict__.update(module.__dict__)
    whole._modules = {**module._modules, next(iter(module._modules)): made}
    return whole


def _qparams(observer: Any, weight: torch.Tensor, is_seen: bool = False) -> dict[str, Any]:
    """What a reference module is told of one weight."""
    if not dtypes.is_integer(observer.dtype):
        return {"qscheme": None, "dtype": observer.dtype}
    if not is_seen:
        with torch.no_grad():
            observer(weight.detach())
    scale, zero_point = observer.calculate_qparams()
    axis = observer.ch_axis if dtypes.is_per_channel(observer.qscheme) else None
    low, high = (getattr(observer, name, None) for name in ("quant_min", "quant_max"))
    return weight_qparams(QParams(scale, zero_point, axis, observer.dtype, low, high, observer.qscheme))
