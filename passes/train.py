"""Put modules that train with rounded weights in the place of those that are to be quantized."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from qfx.graph.walk import modules_in
from qfx.nn import intrinsic
from qfx.passes.annotate.instances import Found
from qfx.passes.pipeline import Context
from qfx.passes.switched_off import drop_switched_off


def train_weights(context: Context, found: Found) -> int:
    """Swap the module of every weighted instance; returns how many.

    The backend names the class that trains in a module's place. A module without one (a transposed convolution) stays;
    its weight is rounded at conversion only. Weights of functions pass through a fake-quantize module of their own.
    """
    paths = _paths(context)
    swapped: set[nn.Module] = set()
    for node, instance in found.of.items():
        if node is not instance.root or not instance.weighted or node.op != "call_module":
            continue
        module = context.view.module(str(node.target))
        kind: Any = instance.backend_pattern.config.qat_module
        if module in swapped or kind is None:
            continue
        trained = _trained(module, kind, instance.qconfig)
        swapped.add(trained)
        for path in paths[module]:
            context.rewriter.install(path, trained)
    return len(swapped)


def _paths(context: Context) -> dict[nn.Module, list[str]]:
    """Every name of every module: one under two names stays one."""
    paths: dict[nn.Module, list[str]] = {}
    for path, module in modules_in(context.rewriter.gm, aliases=True):
        paths.setdefault(module, []).append(path)
    return paths


def _trained(module: nn.Module, kind: Any, qconfig: Any) -> nn.Module:
    # Its parts are told, too: the class of a backend config may make itself of any of them
    told = [part for part in module.modules() if part is module or "qconfig" not in part.__dict__]
    for part in told:
        part.qconfig = qconfig
    made: nn.Module = kind.from_float(module)
    for part in told:
        part.__dict__.pop("qconfig", None)
    return made


def trained_as_float(module: Any) -> tuple[Any, Any] | None:
    """The float form of a module that trained, batch norm folded, and its weight's fake-quantize module; or None."""
    return (module.to_float(), module.weight_fake_quant) if _trains(module) else None


def _trains(module: nn.Module) -> bool:
    # The class is asked first: for an attribute a module does not have, nn.Module searches long
    return hasattr(type(module), "to_float") and hasattr(module, "weight_fake_quant")


_NORMS = (_BatchNorm, intrinsic.BNReLU2d, intrinsic.BNReLU3d)


def settle(context: Context, instances: Mapping[str, Mapping[str, Any]]) -> None:
    """Take a graph that trained for what it is at inference.

    Args:
        context: of the graph.
        instances: the plan of `prepare_fx`, by name of the root.
    """
    drop_switched_off(context, instances)
    _float_again(context, instances)
    # A batch norm counts by its running statistics, whatever mode it was left in; the prepared one may go on training
    for node in list(context.rewriter.gm.graph.find_nodes(op="call_module")):
        if node.name not in instances:
            continue
        module = context.view.module(str(node.target))
        if module.training and isinstance(module, _NORMS):
            context.rewriter.install(str(node.target), copy.deepcopy(module).eval())
            context.view.forget(node)


def _float_again(context: Context, instances: Collection[str]) -> None:
    """Modules that trained with rounded weights and stay float go on with plain ones, batch norm folded."""
    calls = {
        node: context.view.module(str(node.target)) for node in context.rewriter.gm.graph.find_nodes(op="call_module")
    }
    quantized = {module for node, module in calls.items() if node.name in instances}  # by another of its calls
    trained = {node: module for node, module in calls.items() if module not in quantized and _trains(module)}
    paths = _paths(context) if trained else {}
    floats: dict[nn.Module, nn.Module] = {}
    for node, module in trained.items():
        if module not in floats:
            to_float: Any = module.to_float
            floats[module] = to_float()
            for path in paths[module]:
                context.rewriter.install(path, floats[module])
        context.view.forget(node)
