"""Make a graph plain: no identities, no switched-off dropout, no in-place op where a functional one does the same."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from qfx import layout, ops
from qfx.graph import Reading
from qfx.graph.copying import copied_module
from qfx.graph.provenance import KEY
from qfx.graph.writes import may_share_memory
from qfx.passes.pipeline import Context, FunctionPass, Pass
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import rule
from qfx.patterns import Match
from qfx.patterns.catalogue.weighted import dropped, identity
from qfx.spellings import ModuleSpelling


@rule(dropped)
def drop_dropout(m: Match, g: Rewriter) -> Any:
    """Dropout in eval mode is its input."""
    return m.x


_OF_FUNCTIONAL = "activation_post_process"  # where a FloatFunctional keeps an identity of its own


def _droppable(m: Match) -> bool:
    """Guard: it is no ``nn.Identity`` that hands out a tensor as the model's result, where the layout keeps one."""
    node = m.anchor
    if not layout.as_original or node.op != "call_module" or str(node.target).endswith(_OF_FUNCTIONAL):
        return True
    return all(user.op != "output" for user in node.users) or m.view.rank(m.x) is None


@rule(identity, where=(_droppable,))
def drop_identity(m: Match, g: Rewriter) -> Any:
    """``nn.Identity`` and aliases are their input."""
    return m.x


def open_identities(gm: GraphModule, context: Context) -> bool:
    """Replace an identity of several values, ``a, b = self.skip((x, y))``, by those values."""
    changed = False
    for reading in context.view.find(ops.identity):
        if not isinstance(reading.inputs[0], Node):
            _hand_on(context, reading.node, reading.inputs[0])
            changed = True
    return changed


def _hand_on(context: Context, node: Node, values: Any) -> None:
    """Give the readers of a node a structure of values, or the parts of it that they take, in its place."""
    g = context.rewriter
    for user in list(node.users):
        if user.target is operator.getitem and isinstance(values, tuple | list | dict):
            part = values[user.args[1]]  # type: ignore[index]
            if isinstance(part, Node):
                g.replace(user, part)
            else:
                _hand_on(context, user, part)
            continue
        user.args = map_arg(user.args, lambda n: values if n is node else n)
        user.kwargs = map_arg(user.kwargs, lambda n: values if n is node else n)
        context.view.forget(user)
    g.erase_if_unused(node)


# Methods that take the shape of another tensor, and those that take a shape.
_OF_ANOTHER = {"expand_as": "expand", "view_as": "view", "reshape_as": "reshape"}


def spell_sizes(gm: GraphModule, context: Context) -> bool:
    """Replace ``x.expand_as(y)`` by ``x.expand(y.size())``, and its like: `y` is asked its size, not computed with."""
    changed, g = False, context.rewriter
    for node in gm.graph.nodes:
        name = _OF_ANOTHER.get(str(node.target)) if node.op == "call_method" else None
        tensors = [*node.args, *node.kwargs.values()]
        if name is None or len(tensors) != 2:
            continue
        with g.at(node):
            size = g.method("size", tensors[1])
            del size.meta[KEY]  # the user's node is the other one
            shaped = g.method(name, tensors[0], size)
        g.replace(node, shaped)
        changed = True
    return changed


def functionalize(gm: GraphModule, context: Context) -> bool:
    """Replace an in-place call by its functional form where nobody else can see the written tensor.

    Safe when the written value is itself freshly computed (no input, no parameter) and no view of it is around: what
    reads it afterwards can read the call's result. What stays in place is a barrier: no match straddles it.
    """
    changed, modules, seen = False, _InPlaceModules(context), _Seen()
    for node in list(gm.graph.nodes):
        reading = context.view.read(node)
        if reading.mutates and reading.spelling is not None:
            later = _later_readers(context, reading, seen)
            for user in later or ():
                user.replace_input_with(reading.inputs[0], node)
                context.view.forget(user)
            if isinstance(reading.spelling, ModuleSpelling):
                modules.note(node, later is not None)
            elif later is not None:
                node = _functional(context, node)
                changed = True
            if later is not None:
                seen.fresh.add(node)
        seen.before.add(node)
    changed = modules.make_functional() or changed
    if changed:
        context.view.forget_regions()
    return changed


@dataclass(slots=True)
class _Seen:
    """The nodes walked so far, and the in-place calls among them that are, or will be, functional."""

    before: set[Node] = field(default_factory=set)
    fresh: set[Node] = field(default_factory=set)


def _functional(context: Context, node: Node) -> Node:
    """Put the functional form of an in-place call in its place."""
    g, reading = context.rewriter, context.view.read(node)
    with g.at(node):
        attrs = {name: value for name, value in reading.attrs.items() if name != "inplace"}
        new = g.call(reading.op, *reading.inputs, **attrs)
    g.replace(node, new)
    return new


class _InPlaceModules:
    """Modules such as ``nn.ReLU(inplace=True)``: made functional where every call of the module is safe."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._calls: dict[nn.Module, list[tuple[Node, bool]]] = {}

    def note(self, node: Node, safe: bool) -> None:
        module = self._context.view.module(str(node.target))
        self._calls.setdefault(module, []).append((node, safe))

    def make_functional(self) -> bool:
        done = False
        for module, calls in self._calls.items():
            if not all(safe for _, safe in calls):
                # Somebody sees what one of the calls writes; the others call a functional copy.
                done = self._split(module, [node for node, safe in calls if safe]) or done
                continue
            # A copy: a graph module of symbolic_trace shares its modules with the model it was traced from.
            functional = self._copy(module)
            for path in {str(node.target) for node, _ in calls}:
                self._context.rewriter.install(path, functional)
            for node, _ in calls:
                self._context.view.forget(node)
            done = True
        return done

    def _copy(self, module: nn.Module) -> nn.Module:
        functional: Any = copied_module(module, {})
        functional.inplace = False
        return functional  # type: ignore[no-any-return]

    def _split(self, module: nn.Module, calls: list[Node]) -> bool:
        g, functional, path = self._context.rewriter, self._copy(module), None
        for node in calls:
            with g.at(node):
                new = g.module(functional, *node.args, at=path, stem=str(node.target).replace(".", "_"), **node.kwargs)
            path = str(new.target)
            g.replace(node, new)
        return bool(calls)


def _later_readers(context: Context, reading: Reading, seen: _Seen) -> list[Node] | None:
    """Who reads the written value after an in-place call, and may read its result instead; None if it must stay."""
    source, node = reading.inputs[0], reading.node
    if not isinstance(source, Node):
        return None
    others = [user for user in source.users if user is not node]
    if any(user in seen.before and (user.op == "output" or _shares(context, user, seen)) for user in others):
        return None  # a view of the value shows what is written
    inner = source
    while _shares(context, inner, seen):
        inputs = inner.all_input_nodes
        if len(inputs) != 1 or len(inputs[0].users) > 1:
            return None
        inner = inputs[0]
    if inner.op == "get_attr" or (inner.op == "placeholder" and not _only_saves_memory(reading)):
        return None
    return [user for user in others if user not in seen.before]


def _only_saves_memory(reading: Reading) -> bool:
    """Whether a call writes to save memory, ``F.relu(x, inplace=True)``, and not to change what the caller has."""
    return bool(reading.attrs.get("inplace")) and bool(reading.node.users)


def _shares(context: Context, node: Node, seen: _Seen) -> bool:
    return node not in seen.fresh and may_share_memory(context.view, node)


NORMALIZE = (
    FunctionPass("spell sizes", spell_sizes),
    FunctionPass("functionalize", functionalize),
    FunctionPass("open identities", open_identities),
    Pass("normalize", (drop_dropout, drop_identity), provides=frozenset({"normalized"})),
)
