"""Layers with a weight, spelled as modules: where the weight is, its observer, and the reference form in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from qfx.errors import ConfigError
from qfx.graph.attributes import parent_of
from qfx.nn.quantized import reference
from qfx.nn.quantized.reference.weight import of_float
from qfx.passes.blanks import Blanks
from qfx.passes.dynamic import is_whole
from qfx.passes.pipeline import Context
from qfx.passes.train import trained_as_float
from qfx.passes.weights import along_output_channels, weight_qparams
from qfx.qparams import QParams
from qfx.spellings import module_spelling

REFERENCE: dict[type[nn.Module], Any] = {
    getattr(nn, name): getattr(reference, name)
    for name in ("Linear", *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)))
}


def own_reference(root_module: Any, reference_module: Any) -> tuple[Any, Any] | None:
    """A root module and its reference form that a backend config names, if they are not the ones known here."""
    if root_module is None or reference_module is None or REFERENCE.get(root_module) is reference_module:
        return None
    return root_module, reference_module


@dataclass(frozen=True, slots=True)
class Layer:
    """A weighted module to be replaced.

    Attributes:
        path: where it is called, and `roots`, the nodes that call it.
        called: the module in the graph.
        module: the same in float: itself, or what a module that trained folds to.
        inner: names from `module` down to the part of it with the weight; empty where that is the whole.
        observer: of the weight.
        kind: the class of the reference form.
        foreign: that class is a user's, which makes the form itself.
    """

    path: str
    called: Any
    module: Any
    inner: tuple[str, ...]
    observer: Any
    roots: list[Node]
    kind: Any
    foreign: bool

    @property
    def part(self) -> Any:
        """The part with the weight."""
        return _at(self.module, self.inner)


def _at(module: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        module = module._modules[name]
    return module


def first_parts(module: nn.Module | None) -> Iterator[tuple[str, nn.Module]]:
    """A module, the first module in it, the first in that and so on, with their names; the first one's is empty."""
    name = ""
    while module is not None:
        yield name, module
        name, module = next(iter(module._modules.items()), ("", None))


def _down_to(module: nn.Module, wanted: Any) -> tuple[str, ...] | None:
    """Names from a module down its first parts to one whose class is wanted; None if there is none."""
    names: list[str] = []
    for name, part in first_parts(module):
        names.append(name)
        if type(part) in wanted:
            return tuple(names[1:])
    return None


def weighted_part(module: nn.Module) -> nn.Module:
    """The part of a layer with its weight: itself, or the first module in it; a module that trains is whole."""
    if type(module) in REFERENCE or "weight_fake_quant" in module._modules:
        return module
    return _at(module, _down_to(module, REFERENCE) or ())  # type: ignore[no-any-return]


def layers(context: Context, instances: dict[str, dict[str, Any]]) -> list[Layer]:
    """The weighted modules among the instances, their weights observed; a module called twice is there once.

    Raises:
        ConfigError: a layer has no reference form.
    """
    found: dict[int, Layer] = {}
    blanks = Blanks()
    roots = {node.name: node for node in context.rewriter.gm.graph.nodes if node.name in instances}
    for name, instance in instances.items():
        root = roots.get(name)
        if root is None or not instance["weighted"] or is_whole(instance) or root.op != "call_module":
            continue
        path = str(root.target)
        called: Any = context.view.module(path)
        if id(called) in found:
            found[id(called)].roots.append(root)
            continue
        folded = trained_as_float(called)
        if folded is None:
            module, observer = called, blanks.make(instance["qconfig"].weight)
        else:
            module, observer = folded[0], copy.deepcopy(folded[1])  # the prepared model keeps its own as it is
        own = instance.get("reference")
        inner = _down_to(module, REFERENCE if own is None else (own[0],))
        if inner is None:
            raise ConfigError(
                f"{path}, a {type(module).__name__}, has no quantized form; name its reference module in the "
                "BackendPatternConfig of its class (set_root_module and set_reference_quantized_module)"
            )
        part = _at(module, inner)
        spelling = module_spelling(type(part))
        if folded is None and spelling is not None:
            along_output_channels(observer, spelling.op)
        observer(part.weight.detach())
        kind = REFERENCE[type(part)] if own is None else own[1]
        found[id(called)] = Layer(path, called, module, inner, observer, [root], kind, own is not None)
    return list(found.values())


def in_reference(context: Context, layer: Layer, qparams: QParams, paths: list[str]) -> nn.Module | None:
    """Put the reference form of a module in its place, wherever it stands.

    Returns:
        The form, if its parameters are still those of the float module.
    """
    gm, part = context.rewriter.gm, layer.part
    if layer.foreign:
        made: nn.Module = layer.kind.from_float(copy.deepcopy(part), weight_qparams(qparams))
    else:
        made = of_float(layer.kind, part, weight_qparams(qparams), taken=_as_it_is)
    weighted = made
    for depth in reversed(range(len(layer.inner))):  # the containers around it, the innermost first
        made = _container(_at(layer.module, layer.inner[:depth]), layer.inner[depth], made)
    for name in paths:
        owner, attribute = parent_of(gm, name)
        owner._modules[attribute] = made  # a module stands there, so no need to look for what else might
        context.view.forget_module(name)
    return None if layer.foreign else weighted


def _container(module: Any, name: str, child: nn.Module) -> nn.Module:
    """A container like another one, with one of its modules replaced."""
    kind: Any = type(module)
    made: nn.Module = kind.__new__(kind)
    made.__dict__.update(module.__dict__)
    made._modules = {**module._modules, name: child}
    return made


def _as_it_is(parameter: nn.Parameter) -> nn.Parameter:
    return parameter
