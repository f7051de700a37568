"""Observers become quantize and dequantize with constant parameters: the reference graph, always runnable."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from qfx import dtypes
from qfx.graph import Param
from qfx.graph.provenance import module_path
from qfx.nn.quantized import reference
from qfx.passes.observe import KEY, watching
from qfx.passes.pipeline import Context
from qfx.qparams import QParams

REFERENCE: dict[type[nn.Module], Any] = {
    getattr(nn, name): getattr(reference, name)
    for name in ("Linear", *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)))
}


@dataclass(slots=True)
class Converted:
    """What conversion found out, as plain data.

    Attributes:
        problems: name of the observed node -> what makes its statistics doubtful.
        shapes: name of a value -> shape its observer saw last; ``[]`` where it saw none.
        unquantized: name of a value -> why its observer was dropped.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    unquantized: dict[str, str] = field(default_factory=dict)


def convert(context: Context, instances: dict[str, dict[str, Any]]) -> Converted:
    """Replace every observer node, and every weighted module by its reference form.

    Args:
        context: the observed graph.
        instances: the plan of `prepare_fx`, by name of the root.
    """
    found = Converted()
    gm, solved = context.rewriter.gm, _Solved()
    roots = {node.name: node for node in gm.graph.nodes if node.name in instances}
    names = _Names(context)
    for node in list(gm.graph.nodes):
        if KEY in node.meta:
            _replace(context, node, solved, names, found)
    done: set[int] = set()
    paths: dict[int, list[str]] = {}
    for path, module in gm.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    for name, instance in instances.items():
        root = roots.get(name)
        if root is not None and instance["weighted"] and root.op == "call_module":
            _reference(context, root, instance["qconfig"], done, paths)
    return found


def observers(gm: GraphModule) -> Iterator[nn.Module]:
    """The modules of observer nodes."""
    for node in gm.graph.nodes:
        if KEY in node.meta:
            yield gm.get_submodule(str(node.target))


class _Solved:
    """Parameters of each observer, worked out once however many values it observes."""

    def __init__(self) -> None:
        # The observer is held too: the id of a dead one could be given to the next.
        self._met: Counter[Any] = Counter()  # by module, which compares by identity
        self._known: dict[int, tuple[QParams, list[str], Any]] = {}

    def of(self, observer: Any) -> QParams:
        return self._once(observer)[0]

    def shape(self, observer: Any) -> list[int]:
        """The shape of the value whose node comes next, as it was seen last; ``[]`` where nothing tells."""
        number = self._met[observer]
        self._met[observer] += 1
        inner = watching(observer)
        seen = getattr(inner, "seen_shapes", [])
        return list(seen[number]) if len(seen) == getattr(inner, "values", 1) else []

    def problems(self, observer: Any) -> list[str]:
        return self._once(observer)[1]

    def _once(self, observer: Any) -> tuple[QParams, list[str], Any]:
        found = self._known.get(id(observer))
        if found is None:
            problems = problems_of(observer)
            found = self._known[id(observer)] = (qparams_of(observer, problems), problems, observer)
        return found


NOTHING_SEEN = ("never ran", "saw only empty tensors", "saw no finite value")
"""The problems that leave an observer without a range."""


def problems_of(observer: Any) -> list[str]:
    """What makes an observer's statistics doubtful; a user's own class need not know."""
    inner = watching(observer)
    return inner.problems() if hasattr(inner, "problems") else []


def qparams_of(observer: Any, problems: list[str]) -> QParams:
    """The parameters any observer arrived at, ours or a user's."""
    if problems and problems[0] in NOTHING_SEEN:
        # What the original gives too; it warns for each, here convert says it once for all.
        scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int)
    else:
        scale, zero_point = observer.calculate_qparams()
    axis = getattr(observer, "ch_axis", None) if dtypes.is_per_channel(observer.qscheme) else None
    return QParams(scale, zero_point, axis, observer.dtype, observer.quant_min, observer.quant_max, observer.qscheme)


class _Names:
    """Names of scale and zero point: after the module that makes a value, or the one that reads it, or the scope."""

    def __init__(self, context: Context) -> None:
        self._gm = context.rewriter.gm
        self._next: dict[str, int] = {}

    def of(self, value: Node, observer: Node) -> tuple[str, str]:
        reader = next(iter(observer.users), None)
        if value.op == "call_module":
            stem = str(value.target)
        elif reader is not None and reader.op == "call_module":
            stem = f"{reader.target}_input"
        else:
            stem = module_path(value)
        stem = stem.replace(".", "_")
        number = self._next.get(stem, 0)
        while hasattr(self._gm, f"{stem}_scale_{number}"):
            number += 1
        self._next[stem] = number + 1
        return f"{stem}_scale_{number}", f"{stem}_zero_point_{number}"


def _replace(context: Context, node: Node, solved: _Solved, names: _Names, found: Converted) -> None:
    g, value = context.rewriter, node.args[0]
    assert isinstance(value, Node)
    observer: Any = context.view.module(str(node.target))
    source = context.view.value(value)
    if isinstance(source, Param) and not getattr(observer, "batches", 1):
        observer = copy.deepcopy(observer)  # the prepared model keeps its own as it is
        observer(source.tensor)  # a weight needs no calibration data
    found.shapes[value.name] = solved.shape(observer)
    if not dtypes.is_integer(observer.dtype):
        found.unquantized[value.name] = f"{observer.dtype} has no quantized form here"
        _splice(context, node, value)
        return
    problems = solved.problems(observer)
    if problems:
        found.problems[value.name] = problems
    qparams = solved.of(observer)
    with g.at(node):
        scale_name, zero_name = names.of(value, node)
        if qparams.axis is not None:
            arguments = [
                _constant(context, scale_name, qparams.scale),
                _constant(context, zero_name, qparams.zero_point),
            ]
            quantized = g.call(torch.quantize_per_channel, value, *arguments, qparams.axis, qparams.dtype)
        else:
            scale, zero_point = torch.as_tensor(qparams.scale), torch.as_tensor(qparams.zero_point)
            arguments = [
                _constant(context, scale_name, scale.reshape(())),
                _constant(context, zero_name, zero_point.reshape(())),
            ]
            quantized = g.call(torch.quantize_per_tensor, value, *arguments, qparams.dtype)
        back = g.method("dequantize", quantized)
    _splice(context, node, back)


def _constant(context: Context, name: str, value: Any) -> Node:
    g = context.rewriter
    g.gm.register_buffer(name, torch.as_tensor(value).detach().clone())
    return g.fetch(name)


def _splice(context: Context, observer: Node, value: Node) -> None:
    for user in list(observer.users):
        user.replace_input_with(observer, value)
        context.view.forget(user)
    path = str(observer.target)
    context.view.forget(observer, erased=True)
    context.rewriter.gm.graph.erase_node(observer)
    delattr(context.rewriter.gm, path)


def _reference(context: Context, root: Node, qconfig: Any, done: set[int], paths: dict[int, list[str]]) -> None:
    """Put the reference form of a module in its place; a module called twice is replaced once."""
    gm, path = context.rewriter.gm, str(root.target)
    module = gm.get_submodule(path)
    if id(module) in done:
        return
    inner = module if type(module) in REFERENCE else next(iter(module.children()))
    observer: Any = qconfig.weight()
    weight: Any = inner.weight
    observer(weight.detach())
    made = REFERENCE[type(inner)].from_float(inner, weight_qparams(observer))
    made.train(inner.training)
    if inner is not module:
        fused = type(module).__new__(type(module))
        fused.__dict__ = dict(module.__dict__)
        fused._modules = {**module._modules, next(iter(module._modules)): made}
        made = fused
    done.add(id(made))
    for name in paths[id(module)]:
        owner, _, attribute = name.rpartition(".")
        setattr(gm.get_submodule(owner), attribute, made)
        context.view.forget_module(name)


def weight_qparams(observer: Any) -> dict[str, Any]:
    """What a reference module is told of its weight."""
    qparams = qparams_of(observer, problems_of(observer))
    per_channel = qparams.axis is not None
    symmetric = {
        torch.per_tensor_symmetric: torch.per_tensor_affine,
        torch.per_channel_symmetric: torch.per_channel_affine,
    }
    found = {
        "qscheme": symmetric.get(observer.qscheme, observer.qscheme),
        "dtype": observer.dtype,
        "scale": qparams.scale,
        "zero_point": qparams.zero_point,
        "quant_min": observer.quant_min,
        "quant_max": observer.quant_max,
    }
    return found | ({"axis": qparams.axis} if per_channel else {})
