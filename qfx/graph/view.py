"""The view of an fx graph: each node read once into (op, inputs, attributes)."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.graph.attributes import get_attribute, submodule
from qfx.graph.hooks import hooks_of
from qfx.graph.ranks import rank
from qfx.graph.values import Param, Reading
from qfx.graph.writes import says_it_writes
from qfx.ops import Op
from qfx.spellings import CallSpelling, UnreadableCall, calls, module_spelling, opaque


def _in_place(module: Any) -> bool:
    """Whether a module says that it writes to its input."""
    # Looked up past nn.Module, which searches long for an attribute that is not there
    there = "inplace" in module.__dict__ or hasattr(type(module), "inplace")
    return there and module.inplace is True


_STRUCTURE = {"placeholder": ops.placeholder, "output": ops.output}


class GraphView:
    """Reads the nodes of a graph module in canonical form, lazily and once each.

    The canonical op is a way of reading, never a rewrite: the node keeps its spelling. After a node is changed, call
    `forget`; the `Rewriter` does.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> gm = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        >>> view = GraphView(gm)
        >>> [view.read(node).op.name for node in gm.graph.nodes]
        ['placeholder', 'linear', 'relu', 'output']
    """

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self._readings: dict[Node, Reading] = {}
        self._params: dict[int, Param] = {}
        self._readers: dict[int, list[tuple[Node, str]]] | None = None
        self._callers: dict[int, int] | None = None
        self._calls: dict[Node, int] = {}
        self._regions: dict[Node, int] | None = None
        self._ranks: dict[Node, int | None] = {}
        self._modules: dict[str, torch.nn.Module] = {}

    # -- reading ---------------------------------------------------------------------------------------------------
    def read(self, node: Node) -> Reading:
        """The canonical reading of `node`."""
        reading = self._readings.get(node)
        if reading is None:
            reading = self._readings[node] = self._read(node)
        return reading

    def find(self, *wanted: Op) -> Iterator[Reading]:
        """The readings of these ops, in graph order; a node whose target never spells one is not read for it."""
        for node in list(self.gm.graph.nodes):
            if not node._erased and self.may_be(node, wanted):
                reading = self.read(node)
                if reading.op in wanted:
                    yield reading

    def may_be(self, node: Node, wanted: Collection[Op]) -> bool:
        """Whether reading a node could give one of these ops, by its target alone."""
        if node.op == "call_module":
            kind = type(self.module(str(node.target)))
            spelling = module_spelling(kind)
            return (spelling is not None and spelling.op in wanted) or opaque(kind) in wanted
        if node.target is operator.getitem:  # it may stand for what it takes output 0 of
            return True
        return any(spelling.op in wanted for spelling in calls(node.target)) or opaque(node.target) in wanted

    def module(self, target: str) -> torch.nn.Module:
        """The submodule called `target`."""
        found = self._modules.get(target)
        if found is None:
            found = self._modules[target] = submodule(self.gm, target)
        return found

    def _read(self, node: Node) -> Reading:
        if node.op in _STRUCTURE:
            return Reading(node, _STRUCTURE[node.op], tuple(self.value(a) for a in node.args), {})
        if node.op == "get_attr":
            return Reading(node, opaque("get_attr"), (), {"target": node.target})
        if node.op == "call_module":
            return self._read_module(node)
        if node.target is operator.getitem:
            primary = self._primary_source(node)
            if primary is not None:
                return primary
        for spelling in calls(node.target):
            try:
                found = spelling.read(node.args, node.kwargs)
                if spelling.primary:
                    continue
                return self._canonical(node, spelling.op, found, spelling, spelling.inplace)
            except UnreadableCall:
                continue
        return self._opaque(node, node.target, mutates=says_it_writes(node))

    def _read_module(self, node: Node) -> Reading:
        module = self.module(str(node.target))
        if hooks_of(module):  # it computes more than its class says, so nothing that knows the class may take it
            return self._opaque(node, f"hooked {type(module).__name__}")
        spelling = module_spelling(type(module))
        if spelling is not None:
            try:
                found = spelling.call.bind(node.args, node.kwargs)
            except UnreadableCall:
                return self._opaque(node, type(module), mutates=_in_place(module))
            for attribute, canonical in spelling.params.items():
                tensor = (
                    module._parameters[attribute] if attribute in module._parameters else getattr(module, attribute)
                )
                found[canonical] = None if tensor is None else self.param(f"{node.target}.{attribute}", tensor)
            for attribute, canonical in spelling.attrs.items():
                found[canonical] = getattr(module, attribute)
            found.update(spelling.fixed)
            if spelling.adjust is not None:
                found = spelling.adjust(module, found)
            try:
                return self._canonical(node, spelling.op, found, spelling, bool(found.get("inplace", False)))
            except UnreadableCall:
                return self._opaque(node, type(module), mutates=_in_place(module))
        return self._opaque(node, type(module), mutates=_in_place(module))

    def _canonical(self, node: Node, op: Op, found: dict[str, Any], spelling: Any, mutates: bool) -> Reading:
        inputs = [self.value(found.pop(name, None)) for name in op.input_names]
        attrs = {
            name: op.normalize(name, found.pop(name)) if name in found else attr.default
            for name, attr in op.attrs.items()
        }
        for name, value in found.items():
            if value is not None and not name.startswith("_"):
                raise UnreadableCall(f"{op} has no argument {name!r}")
        return Reading(node, op, tuple(inputs), attrs, spelling, mutates or attrs.get("inplace") is True)

    def _opaque(self, node: Node, target: Any, mutates: bool = False) -> Reading:
        return Reading(node, opaque(target), tuple(self.value(a) for a in node.args), dict(node.kwargs), None, mutates)

    def _primary_source(self, node: Node) -> Reading | None:
        """Output 0 of an op whose other outputs nobody uses *is* the op: ``max_pool2d_with_indices(x)[0]``."""
        source, index = node.args[0], node.args[1]
        if index != 0 or not isinstance(source, Node) or any(user.users for user in source.users if user is not node):
            return None
        for spelling in calls(source.target):
            if isinstance(spelling, CallSpelling) and spelling.primary:
                try:
                    found = spelling.read(source.args, source.kwargs)
                    return self._canonical(node, spelling.op, found, spelling, spelling.inplace)
                except UnreadableCall:
                    continue
        return None

    def value(self, written: Any) -> Any:
        """An argument as the matcher sees it: ``get_attr`` nodes are `Param`, as are those not fetched yet; lists are
        tuples."""
        if isinstance(written, Node):
            if written.op == "get_attr":
                tensor = get_attribute(self.gm, str(written.target))
                if isinstance(tensor, torch.Tensor):
                    return self.param(str(written.target), tensor, written)
            return written
        if isinstance(written, list | tuple):
            return tuple(self.value(item) for item in written)
        return written

    # -- parameters ------------------------------------------------------------------------------------------------
    def param(self, fqn: str, tensor: torch.Tensor, node: Node | None = None) -> Param:
        """The one `Param` of a tensor, whatever name it is reached by."""
        found = self._params.get(id(tensor))
        if found is None:
            found = self._params[id(tensor)] = Param(fqn, tensor, node)
        elif found.node is None and node is not None:
            found.node = node
        return found

    def readers(self, param: Param) -> list[tuple[Node, str]]:
        """All (node, input name) that read a parameter; a module called twice reads its weight twice."""
        if self._readers is None:
            self._readers = {}
            for node in self.gm.graph.nodes:
                for name, value in self.params_of(self.read(node)):
                    self._readers.setdefault(id(value.tensor), []).append((node, name))
        return self._readers.get(id(param.tensor), [])

    def callers(self, target: str) -> int:
        """How many nodes call the submodule at `target`, under whatever name."""
        if self._callers is None:
            self._callers = {}
            for node in self.gm.graph.nodes:
                self._count_call(node)
        return self._callers.get(id(self.module(target)), 0)

    def _count_call(self, node: Node) -> None:
        if self._callers is not None and node.op == "call_module":
            # Remembered by node: by the time a node is erased another module may stand at its path.
            key = self._calls[node] = id(self.module(str(node.target)))
            self._callers[key] = self._callers.get(key, 0) + 1

    @staticmethod
    def params_of(reading: Reading) -> Iterator[tuple[str, Param]]:
        """(input name, parameter) for every parameter a reading takes."""
        names = reading.op.names if not reading.op.opaque else ()
        for position, value in enumerate(reading.inputs):
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Param):
                    yield (names[position] if position < len(names) else str(position)), item

    # -- mutation --------------------------------------------------------------------------------------------------
    def region(self, node: Node) -> int:
        """How many mutations precede `node`; a match may not straddle one, so its nodes share a region."""
        if self._regions is None:
            self._regions, count = {}, 0
            for each in self.gm.graph.nodes:
                self._regions[each] = count
                if self.read(each).mutates:
                    count += 1
        return self._regions.get(node, -1)

    def forget_regions(self) -> None:
        """Mutations came or went."""
        self._regions = None

    # -- shapes ----------------------------------------------------------------------------------------------------
    def rank(self, value: Any) -> int | None:
        """How many dimensions a value has; None where neither the graph nor the example inputs tell."""
        return rank(self, value, self._ranks)

    # -- keeping up ------------------------------------------------------------------------------------------------
    def created(self, node: Node, near: Node) -> None:
        """A new node exists; it lies in the mutation region of `near`."""
        if self._regions is not None:
            self._regions[node] = self._regions.get(near, -1)
        self._count_call(node)
        if self._readers is not None:
            for name, value in self.params_of(self.read(node)):
                self._readers.setdefault(id(value.tensor), []).append((node, name))

    def forget(self, node: Node, *, erased: bool = False) -> None:
        """Read `node` anew next time; with `erased`, it no longer reads its parameters either."""
        reading = self._readings.pop(node, None)
        called = self._calls.pop(node, None)
        if erased:
            self._ranks.pop(node, None)
            if self._regions is not None:
                self._regions.pop(node, None)
        if called is not None and self._callers is not None:
            self._callers[called] -= 1
            if not erased:
                self._count_call(node)  # another module may stand at its path now
        if erased and reading is not None and self._readers is not None:
            for _, value in self.params_of(reading):
                left = [(n, name) for n, name in self._readers.get(id(value.tensor), ()) if n is not node]
                self._readers[id(value.tensor)] = left

    def forget_module(self, target: str) -> None:
        """The submodule at `target` was replaced."""
        self._modules.pop(target, None)
