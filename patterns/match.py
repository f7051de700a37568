"""What a match binds, and what a near miss knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch.fx import Node

from qfx.graph import GraphView, Reading
from qfx.patterns.terms import OpTerm
from qfx.reject import Reject

if TYPE_CHECKING:
    from qfx.patterns.language import Pattern

T = TypeVar("T")


class Match:
    """A pattern found in a graph; every capture, name and tag is an attribute.

    Captures are nodes, `Param`s or literals (None where an optional one is absent); named op calls and ``maybe`` tags
    are `Reading`s (``m.conv.attrs``), ``any_of`` tags the name of the branch.

    Attributes:
        anchor: the node a rule's result replaces.
        nodes: all matched nodes.
    """

    def __init__(
        self, pattern: Pattern, view: GraphView, anchor: Node, bound: dict[str, Any], node_of: dict[OpTerm, Node]
    ) -> None:
        self.__dict__.update(pattern.unbound)
        self.__dict__.update(bound)
        self.pattern, self.view, self.anchor = pattern, view, anchor
        self.bound, self.node_of = bound, node_of
        self.nodes = tuple(node_of.values())
        self._known: dict[Any, Any] = {}

    def once(self, function: Callable[[Match], T]) -> T:
        """``function(self)``, worked out the first time it is asked for: guards and the rule share it."""
        if function not in self._known:
            self._known[function] = function(self)
        return self._known[function]  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "bound" not in self.__dict__:
            raise AttributeError(name)
        raise AttributeError(
            f"pattern {self.pattern.name} binds no {name!r}; it binds {', '.join(sorted(self.pattern.names))}"
        )

    def reading(self, node: Node) -> Reading:
        """The canonical reading of any node."""
        return self.view.read(node)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={value!r}" for name, value in self.bound.items())
        return f"<{self.pattern.name} at {self.anchor}: {parts}>"


@dataclass(frozen=True, slots=True)
class NearMiss:
    """The best partial match and why it went no further."""

    pattern: Pattern
    anchor: Node
    nodes: tuple[Node, ...]
    reject: Reject

    @property
    def matched(self) -> int:
        """How many op nodes had matched."""
        return len(self.nodes)

    def __str__(self) -> str:
        nodes = ", ".join(str(node) for node in self.nodes)
        return f"matched {self.matched} of {self.pattern.size} nodes [{nodes}], then: {self.reject.text}"
