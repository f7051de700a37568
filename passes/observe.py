"""Insert one observer per solved group; a group's observer is called once for each value it observes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from qfx.graph import GraphView, Param
from qfx.graph.attributes import submodule, taken_names
from qfx.graph.nodes import erase_node, make_node
from qfx.observers.passive import FollowingObserver
from qfx.passes.annotate.sites import Sites
from qfx.passes.blanks import Blanks
from qfx.passes.pipeline import Context
from qfx.passes.weights import along_output_channels
from qfx.specs import Ticket

STEM = "activation_post_process"
KEY = "qfx_observes"
FOLLOWS = "qfx_follows"
"""Metadata of a node `follow` was at: the shape of its value, which the module it calls now has not seen."""
_KEPT = ("qfx_origins", "nn_module_stack", "stack_trace")  # metadata of the observed value


def observe(context: Context, sites: Sites) -> dict[str, str]:
    """Insert observers for every value in `sites`, in graph order.

    Every reader of a value an instance made sees it through its observer; a value observed for the sake of its readers
    (an input of the model, the output of a float op) is seen so by those readers only. What is picked out of an
    observed value has a `FollowingObserver`, see `follow`.

    Returns:
        Name of the node of each of those -> path of the observer whose parameters it has.
    """
    g, observer_of = context.rewriter, _Observers(sites)
    inserted = _Inserted(g.gm)
    followed: dict[str, str] = {}
    by_value: dict[Node, list[tuple[Node, Ticket]]] = {}
    for (value, root), ticket in sites.edges.items():
        by_value.setdefault(value, []).append((root, ticket))
    for node in list(g.gm.graph.nodes):
        known = sites.tickets.get(node)
        weights = sites.weights.get(node, {})
        layers = [root for _, roots in weights.values() for root in roots]
        # A layer reads its weight through the weight's observer, and through no other.
        others = [user for user in node.users if user not in layers]
        readers = others if node in sites.own else sites.readers.get(node, [])
        seen = node  # the value as its readers see it
        if known is not None and (readers or (node in sites.own and not layers)):
            leader = inserted.path_of(observer_of.known(known)) if node in sites.selected else None
            if leader is None:
                seen = made = inserted.behind(node, observer_of(known))
            else:
                seen = made = inserted.behind(node, FollowingObserver(submodule(g.gm, leader).dtype))
                followed[made.name] = leader
            edge_roots = {root for root, _ in by_value.get(node, ())}
            for user in readers:
                if user not in edge_roots and user is not made:
                    user.replace_input_with(node, made)
                    context.view.forget(user)
        for root, edge in by_value.get(node, ()):
            observer = observer_of(edge)
            # What an op gives is in its own parameters, and a reader that wants others gets them from there
            value = seen if node in sites.own else node
            made = inserted.behind(value, observer)
            root.replace_input_with(node, made)
            context.view.forget(root)
        for factory, (op, roots) in weights.items():
            made = inserted.behind(node, along_output_channels(factory(), op))
            for root in roots:
                root.replace_input_with(node, made)
                context.view.forget(root)
    return followed


def follow(context: Context, followed: Mapping[str, str]) -> None:
    """Put the observers of other values where one follows them, for conversion to make its parameters of.

    Args:
        context: the prepared graph.
        followed: what `observe` returned.
    """
    gm = context.rewriter.gm
    for node in gm.graph.find_nodes(op="call_module", sort=False) if followed else ():
        path = followed.get(node.name)
        if path is not None:
            node.meta[FOLLOWS] = seen_shape(submodule(gm, str(node.target)), 0)
            gm._modules[str(node.target)] = submodule(gm, path)
            context.view.forget_module(str(node.target))


def is_dynamic(observer: Any) -> bool:
    """Whether what it observes gets its scale when the model runs."""
    return bool(getattr(observer, "is_dynamic", False))


def watching(module: Any) -> Any:
    """The observer itself, which a fake-quantize module has inside."""
    # Asked of the table: for an attribute a module does not have, nn.Module searches long
    return getattr(module, "_modules", {}).get("activation_post_process", module)


def seen_shape(observer: Any, number: int) -> list[int]:
    """Shape of the value an observer was called for as its `number`-th, seen last; ``[]`` where nothing tells."""
    inner = watching(observer)
    seen = getattr(inner, "seen_shapes", [])
    return list(seen[number]) if len(seen) == getattr(inner, "values", 1) else []


def seen_shapes(gm: GraphModule) -> dict[str, list[int]]:
    """Shapes of the observed values of a prepared graph, by name of the value; ``[]`` where nothing tells."""
    found: dict[str, list[int]] = {}
    met: Counter[Any] = Counter()  # by module, which compares by identity
    for node in gm.graph.nodes:
        if FOLLOWS in node.meta:
            found[node.meta[KEY]] = node.meta[FOLLOWS]
        elif KEY in node.meta:
            observer = submodule(gm, str(node.target))
            found[node.meta[KEY]] = seen_shape(observer, met[observer])
            met[observer] += 1
    return found


def constant_behind(view: GraphView, value: Any) -> Param | None:
    """The constant a value is, through what observes it; None where it is computed."""
    while isinstance(value, Node) and KEY in value.meta:
        value = value.args[0]
    found = view.value(value)
    return found if isinstance(found, Param) else None


def stop_watching(context: Context, watcher: Node, value: Node) -> None:
    """Give `value` to the readers of a node that watches, and drop the node with its module."""
    for user in list(watcher.users):
        user.replace_input_with(watcher, value)
        context.view.forget(user)
    path = str(watcher.target)
    context.view.forget(watcher, erased=True)
    erase_node(context.rewriter.gm.graph, watcher)
    del context.rewriter.gm._modules[path]


class _Observers:
    """The observer of each group, made when its first value is met; it knows how many values it has."""

    def __init__(self, sites: Sites) -> None:
        assert sites.solution is not None
        self._solution = sites.solution
        self._made: dict[int, Any] = {}
        self._blanks = Blanks()

    def __call__(self, ticket: Ticket) -> nn.Module:
        number = self._solution.group_of[ticket.site]
        observer = self._made.get(number)
        if observer is None:
            factory: Any = self._solution.groups[number].spec.observer
            observer = self._made[number] = self._blanks.make(factory)
            watching(observer).values = 0
        watching(observer).values += 1
        return observer  # type: ignore[no-any-return]

    def known(self, ticket: Ticket) -> nn.Module | None:
        """The observer of a value's group, if another of its values was met."""
        return self._made.get(self._solution.group_of[ticket.site])


class _Inserted:
    """Puts observers into a graph, under names that are free."""

    def __init__(self, gm: GraphModule) -> None:
        taken = taken_names(gm)  # a model may have used such a name itself
        self._names = (name for name in map(f"{STEM}_{{}}".format, itertools.count()) if name not in taken)
        self._gm = gm
        inputs = list(gm.graph.find_nodes(op="placeholder"))
        # Inputs are observed after the last of them, in their order: graphs keep their inputs together.
        self._end = inputs[-1] if inputs else None
        self._paths: dict[nn.Module, str] = {}

    def path_of(self, observer: nn.Module | None) -> str | None:
        """Where an observer was put first; None if it was not."""
        return self._paths.get(observer) if observer is not None else None

    def behind(self, value: Node, observer: nn.Module) -> Node:
        """A node that calls `observer` for `value`; its readers stay as they are."""
        name = next(self._names)
        self._paths.setdefault(observer, name)
        self._gm._modules[name] = observer  # the name is free, which is what adding a module spends its time on
        of_input = value.op == "placeholder"
        graph = self._gm.graph
        with graph.inserting_after(self._end if of_input else value):
            node = make_node(graph, "call_module", name, (value,), {}, name)
        if of_input or value is self._end:
            self._end = node
        node.meta.update({key: value.meta[key] for key in _KEPT if key in value.meta})
        node.meta[KEY] = value.name
        return node
