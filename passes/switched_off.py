"""Dropout that was active in training and is off now: it goes, and what had its scale has that of its input."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.passes.observe import FOLLOWS, seen_shapes, watching
from qfx.passes.observe import KEY as OBSERVES
from qfx.passes.pipeline import Context


def drop_switched_off(context: Context, instances: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace every switched-off dropout by its input.

    In training a dropout gives other values than it takes, so its result has an observer of its own, and what only
    moves that result shares it. Afterwards all of these are the input's values, and have its observer.

    Args:
        context: of the graph.
        instances: the plan of `prepare_fx`, by name of the root.
    """
    g, view = context.rewriter, context.view
    found = [reading for reading in view.find(ops.dropout) if reading.attrs["training"] is False]
    if not found:
        return
    observed = _Observed(context, instances)
    for reading in found:
        node, source = reading.node, reading.inputs[0]
        if isinstance(source, Node) and OBSERVES in source.meta:
            for watcher in [user for user in node.users if OBSERVES in user.meta]:
                observed.as_input(watcher, source)
                g.replace(watcher, source)
        g.replace(node, source)
    g.drop_orphans()


class _Observed:
    """The observer nodes of a graph that trained, by the module they call."""

    def __init__(self, context: Context, instances: Mapping[str, Mapping[str, Any]]) -> None:
        self._view, self._modules = context.view, context.rewriter.gm._modules
        self._shapes = seen_shapes(context.rewriter.gm)
        self._calls: dict[nn.Module, list[Node]] = {}
        named: dict[str, Node] = {}
        for node in context.rewriter.gm.graph.nodes:
            named[node.name] = node
            if OBSERVES in node.meta:
                self._calls.setdefault(self._called(node), []).append(node)
        # The last node of each instance that keeps its input's parameters, by its first
        self._kept = {
            named[root]: named[each["anchor"]]
            for root, each in instances.items()
            if each["kind"] == "same" and root in named and each["anchor"] in named
        }

    def _called(self, node: Node) -> nn.Module:
        return self._view.module(str(node.target))

    def as_input(self, watcher: Node, source: Node) -> None:
        """Give what is moved out of a dropout's result the observer of its input.

        The others of its group keep theirs. Each gets a copy that knows the shape of its value alone: the values of a
        group are told by their order, in which one is missing now.

        Args:
            watcher: observes the dropout's result.
            source: observes its input.
        """
        group, before = self._called(watcher), self._called(source)
        moved = set(self._moved(watcher, group))
        for node in self._calls.pop(group, ()):
            if node is watcher:
                continue
            own: Any = copy.deepcopy(before if node in moved else group)
            shape = self._shapes.get(node.meta[OBSERVES], [])
            inner = watching(own)
            inner.values, inner.seen_shapes = 1, [shape] if shape else []
            node.meta.pop(FOLLOWS, None)
            self._modules[str(node.target)] = own
            self._calls[own] = [node]
            self._view.forget_module(str(node.target))
            self._view.forget(node)

    def _moved(self, watcher: Node, group: nn.Module) -> Iterator[Node]:
        """Observers of a group behind ops that keep their input's parameters, from one of the group on."""
        stack, met = [watcher], {watcher}
        while stack:
            for reader in stack.pop().users:
                anchor = self._kept.get(reader)
                if anchor is None or not met.issuperset(reader.all_input_nodes):
                    continue
                for each in anchor.users:
                    if OBSERVES in each.meta and each not in met and self._called(each) is group:
                        met.add(each)
                        stack.append(each)
                        yield each
