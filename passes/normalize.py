"""Make a graph plain: no identities, no switched-off dropout, no in-place op where a functional one does the same."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from qfx.graph import Reading
from qfx.graph.copying import copied_module
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


@rule(identity)
def drop_identity(m: Match, g: Rewriter) -> Any:
    """``nn.Identity`` and aliases are their input."""
    return m.x


def functionalize(gm: GraphModule, context: Context) -> bool:
    """Replace an in-place call by its functional form where nobody else can see the written tensor.

    Safe when the written value has one user (this call) and is itself freshly computed: not an input, a parameter or a
    view of something else. What stays in place is a barrier: no match straddles it.
    """
    changed, modules = False, _InPlaceModules(context)
    for node in list(gm.graph.nodes):
        reading = context.view.read(node)
        if not reading.mutates or reading.spelling is None:
            continue
        safe = _unseen(context, reading)
        if isinstance(reading.spelling, ModuleSpelling):
            modules.note(node, safe)
        elif safe:
            g = context.rewriter
            with g.at(node):
                attrs = {name: value for name, value in reading.attrs.items() if name != "inplace"}
                new = g.call(reading.op, *reading.inputs, **attrs)
            g.replace(node, new)
            changed = True
    changed = modules.make_functional() or changed
    if changed:
        context.view.forget_regions()
    return changed


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
                continue
            # A copy: a graph module of symbolic_trace shares its modules with the model it was traced from.
            functional: Any = copied_module(module, {})
            functional.inplace = False
            for path in {str(node.target) for node, _ in calls}:
                self._context.rewriter.install(path, functional)
            for node, _ in calls:
                self._context.view.forget(node)
            done = True
        return done


def _unseen(context: Context, reading: Reading) -> bool:
    """Whether nobody else can see what an in-place call writes."""
    source = reading.inputs[0]
    return isinstance(source, Node) and len(source.users) == 1 and _fresh(context, source)


def _fresh(context: Context, node: Node) -> bool:
    """Whether `node` computed a new tensor, so that writing to it is invisible elsewhere."""
    reading: Reading = context.view.read(node)
    if node.op in ("placeholder", "get_attr") or reading.op.opaque:
        return False
    return not reading.op.recomputable  # the recomputable ones are views


NORMALIZE = (
    FunctionPass("functionalize", functionalize),
    Pass("normalize", (drop_dropout, drop_identity), provides=frozenset({"normalized"})),
)
