"""Observers become quantize and dequantize with constant parameters: the reference graph.

It runs once `qfx.passes.fetch` has written nodes for these parameters, after lowering where there is any.
"""

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
from qfx.graph.attributes import submodule
from qfx.graph.copying import copied_tensor
from qfx.graph.walk import modules_in
from qfx.observers.base import SAW_INTEGERS
from qfx.observers.extremes import largest_seen
from qfx.observers.together import Answer, answers_together
from qfx.passes.annotate.inputs import parameter_slots
from qfx.passes.dynamic import at_run_time, is_whole, swap_layers
from qfx.passes.halves import in_halves
from qfx.passes.layers import first_parts, in_reference, layers, weighted_part
from qfx.passes.names import QParamNames
from qfx.passes.observe import FOLLOWS, KEY, is_dynamic, seen_shape, stop_watching, watching
from qfx.passes.pipeline import Context
from qfx.passes.reach import Scale, keep_within
from qfx.passes.train import settle
from qfx.qparams import QParams

CODES_KEY = "qfx_codes"
"""Metadata of a quantize node: the first and the last code its observer had."""


@dataclass(slots=True)
class Converted:
    """What conversion found out, as plain data.

    Attributes:
        problems: name of the observed node -> what makes its statistics doubtful.
        constants: name of the node that reads a weight or another constant -> what is wrong with that.
        shapes: name of a value -> shape its observer saw last; ``[]`` where it saw none.
        unquantized: name of a value -> why its observer was dropped.
        halves: name of a node that computes on half floats -> that no kernel takes them.
        shared: reference modules whose parameters are still those of the prepared model, see `own_parameters`.
        copies: parameters copied so far, by id of the original: tied weights stay tied.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    constants: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    unquantized: dict[str, str] = field(default_factory=dict)
    halves: dict[str, str] = field(default_factory=dict)
    shared: set[nn.Module] = field(default_factory=set)
    copies: dict[int, torch.Tensor] = field(default_factory=dict)

    def own_parameters(self, gm: GraphModule, context: Context) -> bool:
        """Give the reference modules that are left parameters of their own.

        Lowering packs the weights of most and drops them, so a copy made before it is made for nothing.
        """
        changed = False
        for node in gm.graph.find_nodes(op="call_module", sort=False) if self.shared else ():
            called = context.view.module(str(node.target))
            for module in self.shared.intersection(part for _, part in first_parts(called)):
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        module._parameters[name] = copied_tensor(parameter, self.copies)  # type: ignore[assignment]
                self.shared.discard(module)
                changed = True
        self.shared.clear()
        return changed


def convert(context: Context, instances: dict[str, dict[str, Any]]) -> Converted:
    """Replace every observer node, and every weighted module by its reference form.

    Args:
        context: the observed graph.
        instances: the plan of `prepare_fx`, by name of the root.
    """
    found = Converted(halves=in_halves(instances))
    settle(context, instances)
    gm = context.rewriter.gm
    observed = [node for node in gm.graph.nodes if KEY in node.meta]
    weighted = layers(context, instances)
    solved = _Solved([_ready(context, node) for node in observed] + [layer.observer for layer in weighted])
    names = QParamNames(context)
    scales: dict[Node, Scale] = {}
    plan: Any = gm.plan
    left = plan.get("left_out", {})
    for node, observer in zip(observed, solved.observers, strict=False):
        if left and _reads_or_gives_only(node, left, instances):
            solved.seen(node, observer)
            stop_watching(context, node, node.args[0])
            continue
        _replace(context, node, observer, solved, names, found, scales)
    paths: dict[int, list[str]] = {}
    for path, module in modules_in(gm, aliases=True):
        paths.setdefault(id(module), []).append(path)
    swap_layers(context, instances, paths, found.copies)
    for layer in weighted:
        for root in layer.roots:
            context.view.forget(root)  # another module stands there now
            _note_constant(found, root.name, f"{layer.path}.weight", solved.problems(layer.observer))
        made = in_reference(context, layer, solved.of(layer.observer), paths[id(layer.called)])
        if made is not None:
            found.shared.add(made)
    keep_within(context, scales, frozenset(name for name, instance in instances.items() if instance["weighted"]))
    return found


def _reads_or_gives_only(observer: Node, left: dict[str, str], instances: dict[str, dict[str, Any]]) -> bool:
    """Whether an observer stands between ops left out by the mapping for convert, and none that is quantized."""
    kept = {name for instance in instances.values() for name in instance["nodes"]}
    around = [*observer.all_input_nodes, *observer.users]
    return any(node.name in left for node in around) and not any(node.name in kept for node in around)


def only_read(gm: GraphModule, instances: dict[str, dict[str, Any]]) -> Iterator[nn.Module]:
    """The submodules of a prepared model that conversion reads and replaces: observers, and layers with a weight."""
    yield from observers(gm)
    for node in gm.graph.find_nodes(op="call_module"):
        instance = instances.get(node.name, {})
        if instance and is_whole(instance):
            yield submodule(gm, str(node.target))
        elif instance.get("weighted"):
            yield weighted_part(submodule(gm, str(node.target)))


def observers(gm: GraphModule) -> Iterator[nn.Module]:
    """The modules of observer nodes."""
    for node in gm.graph.nodes:
        if KEY in node.meta:
            yield submodule(gm, str(node.target))


class _Solved:
    """Parameters of each observer, worked out once however many values it observes, and all together."""

    def __init__(self, observers: list[Any]) -> None:
        self.observers = observers
        self._met: Counter[Any] = Counter()  # by module, which compares by identity
        unique = list(dict.fromkeys(o for o in observers if dtypes.is_integer(o.dtype) and not is_dynamic(o)))
        answers = dict(zip(unique, answers_together(unique), strict=True))
        self._problems: dict[Any, list[str]] = {observer: answer.problems for observer, answer in answers.items()}
        self._known: dict[Any, QParams] = {observer: _qparams(observer, answer) for observer, answer in answers.items()}

    def of(self, observer: Any) -> QParams:
        return self._known[observer]

    def seen(self, node: Node, observer: Any) -> tuple[list[int], bool]:
        """Of the value whose node comes next: its shape when it was seen last, ``[]`` where nothing tells; and whether
        it is float32, as far as is known."""
        if FOLLOWS in node.meta:
            return node.meta[FOLLOWS], all(getattr(watching(observer), "seen_float32", []))
        number = self._met[observer]
        self._met[observer] += 1
        shape, floats = seen_shape(observer, number), getattr(watching(observer), "seen_float32", [])
        return shape, floats[number] if shape and len(floats) > number else all(floats)

    def problems(self, observer: Any) -> list[str]:
        return self._problems[observer]


def _qparams(observer: Any, answer: Answer) -> QParams:
    """The parameters any observer arrived at, ours or a user's."""
    scale, zero_point = answer.scale, answer.zero_point
    if scale is None or zero_point is None:
        # What the original gives too; it warns for each, here convert says it once for all.
        scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int)
    # A user's observer need say no more than its dtype: one scale for all, and all codes.
    scheme = getattr(observer, "qscheme", None) or torch.per_tensor_affine
    dtype = dtypes.quantized_dtype(observer.dtype) or observer.dtype
    low, high = dtypes.code_range(observer.dtype)
    codes = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
    low, high = (asked if asked is not None else end for asked, end in zip(codes, (low, high), strict=True))
    axis = getattr(observer, "ch_axis", None) if dtypes.is_per_channel(scheme) else None
    return QParams(scale, zero_point, axis, dtype, low, high, scheme)


def _ready(context: Context, node: Node) -> Any:
    """The observer of a node; a weight needs no calibration data, and is seen once more as it is now."""
    observer: Any = context.view.module(str(node.target))
    source = context.view.value(node.args[0])
    if isinstance(source, Param) and (not getattr(observer, "batches", 1) or _is_weight(context, node)):
        observer = copy.deepcopy(observer)  # the prepared model keeps its own as it is
        observer(source.tensor)
    return observer


def _is_weight(context: Context, node: Node) -> bool:
    return any("w" in parameter_slots(context.view, user, node) for user in node.users)


def _replace(
    context: Context,
    node: Node,
    observer: Any,
    solved: _Solved,
    names: QParamNames,
    found: Converted,
    scales: dict[Node, Scale],
) -> None:
    g, value = context.rewriter, node.args[0]
    assert isinstance(value, Node)
    made = at_run_time(context, node, observer)
    if made is not None:
        stop_watching(context, node, made)
        return
    found.shapes[value.name], float32 = solved.seen(node, observer)
    why = _unquantizable(observer, solved)
    if not why and not float32:
        why = "it is not float32, and quantized kernels stand between float32 values"
    if why:
        found.unquantized[value.name] = why
        stop_watching(context, node, value)
        return
    problems = solved.problems(observer)
    if problems and value.op == "get_attr":
        for user in node.users:
            _note_constant(found, user.name, str(value.target), problems)
    elif problems:
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
            scale = _constant(context, scale_name, qparams.scale, single=True)
            zero_point = _constant(context, zero_name, qparams.zero_point, single=True)
            quantized = g.call(torch.quantize_per_tensor, value, scale, zero_point, qparams.dtype)
            if dtypes.code_range(observer.dtype) == (0, 255) and not isinstance(context.view.value(value), Param):
                scales[quantized] = _scale(observer, scale, zero_point)
        quantized.meta[CODES_KEY] = (qparams.quant_min, qparams.quant_max)
        back = g.method("dequantize", quantized)
    stop_watching(context, node, back)


def _note_constant(found: Converted, reader: str, name: str, problems: list[str]) -> None:
    if problems:
        found.constants.setdefault(reader, []).extend(f"{problem} in {name}" for problem in problems)


def _unquantizable(observer: Any, solved: _Solved) -> str:
    """Why a value is not quantized after all; empty where it is."""
    if dtypes.quantized_dtype(observer.dtype) is None:
        return f"{observer.dtype} has no quantized form here"
    if SAW_INTEGERS in solved.problems(observer):
        return (
            "calibration gave it integers, which have no range to quantize; if it is an integer tensor, give "
            "prepare_fx one in its place in example_inputs, else calibrate with floats"
        )
    return ""


def _scale(observer: Any, scale: Param, zero_point: Param) -> Scale:
    inner = watching(observer)
    ends = (getattr(each, "quant_max", None) for each in (observer, inner))
    most = min((end for end in ends if end is not None), default=255)
    return Scale(float(scale.number()), int(zero_point.number()), largest_seen(inner), most)


def _constant(context: Context, name: str, value: Any, *, single: bool = False) -> Param:
    """A buffer of that name; a `single` number has no dimensions, whatever shape it came in."""
    if not isinstance(value, torch.Tensor):
        made = torch.tensor(value)
    elif single:  # made of the number, which costs half of a copy and a change of shape
        dtype = value.dtype if value.is_floating_point() else torch.int64  # as the original's state dicts have it
        made = torch.scalar_tensor(value.item(), dtype=dtype, device=value.device)
    else:
        made = value.detach().clone()
    # The name is known to be free, which is what registering a buffer spends its time on.
    context.rewriter.gm._buffers[name] = made
    param = context.view.param(name, made)
    param.late = True
    return param
