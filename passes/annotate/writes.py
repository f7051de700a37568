"""Values that are written in place: a quantized copy of one would not see the write, nor would the write reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.fx import Node

from qfx.graph import GraphView, Param
from qfx.graph.provenance import describe
from qfx.graph.writes import may_share_memory, written_by
from qfx.passes.annotate.inputs import NO_ROLES, activations


@dataclass(slots=True)
class Written:
    """What in-place calls write to.

    Attributes:
        later: value -> a call after it that writes to its memory, perhaps through a view of it.
        constants: id of a parameter's tensor -> a call that writes to it.
    """

    later: dict[Node, Node] = field(default_factory=dict)
    constants: dict[int, Node] = field(default_factory=dict)

    def refusal(self, view: GraphView, root: Node, anchor: Node, roles: Mapping[str, int] = NO_ROLES) -> str | None:
        """Why an op must not be quantized from the inputs of `root` to the output of `anchor`; None if it may.

        The last value of a memory is like any other: what was written to it is there when it is observed.
        """
        if not self.later and not self.constants:
            return None
        for value in (anchor, *(source for _, source in activations(view, root, roles))):
            if value in self.later:
                return f"{value.name} is written in place by {describe(self.later[value])}"
        for name, param in view.params_of(view.read(root)):
            if id(param.tensor) in self.constants:
                return f"its {name} is written in place by {describe(self.constants[id(param.tensor)])}"
        return None


def written(view: GraphView) -> Written:
    """Follow every in-place call back to the memory it writes to, through views."""
    nodes = list(view.gm.graph.nodes)
    writes = [node for node in nodes if view.read(node).mutates]
    found = Written()
    if not writes:
        return found
    memory = _Memory(view)
    last: dict[object, Node] = {}
    for node in writes:
        for value in written_by(node):
            last[memory.of(value)] = node
    order = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        write = last.get(memory.of(node))
        if write is None:
            continue
        if node.op == "get_attr":
            value = view.value(node)
            if isinstance(value, Param):
                found.constants[id(value.tensor)] = write
        if order[write] > order[node]:
            found.later[node] = write
    return found


class _Memory:
    """Which values may lie in one memory: a value and its views, and theirs."""

    def __init__(self, view: GraphView) -> None:
        self._above: dict[object, object] = {}
        for node in view.gm.graph.nodes:
            value = view.value(node) if node.op == "get_attr" else None
            if isinstance(value, Param):
                self._join(node, id(value.tensor))
            elif node.op.startswith("call") and may_share_memory(view, node):
                for source in node.all_input_nodes:
                    self._join(node, source)

    def of(self, value: object) -> object:
        """What stands for the memory of a value."""
        while (above := self._above.get(value)) is not None:
            value = above
        return value

    def _join(self, value: object, other: object) -> None:
        one, two = self.of(value), self.of(other)
        if one != two:
            self._above[one] = two
