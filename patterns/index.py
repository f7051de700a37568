"""Which patterns can have their anchor at a node: by op, then by the ops that feed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from torch.fx import Node

from qfx.graph import GraphView
from qfx.ops import Op
from qfx.patterns.language import Pattern

T = TypeVar("T")


class Index(Generic[T]):
    """Patterns by the canonical op of their anchor, rejected early on the ops of the anchor's producers.

    N patterns over M nodes then cost about O(M). Order within a bucket: priority (lower first), longer patterns first,
    declaration.
    """

    def __init__(self, entries: Iterable[tuple[Pattern, int, T]]) -> None:
        ordered = sorted(enumerate(entries), key=lambda e: (e[1][1], -e[1][0].size, e[0]))
        self._by_op: dict[Op, list[tuple[int, Pattern, T, tuple[frozenset[Op], ...]]]] = {}
        self._anywhere: list[tuple[int, Pattern, T, tuple[frozenset[Op], ...]]] = []
        for rank, (_, (pattern, _, payload)) in enumerate(ordered):
            if pattern.roots is None:
                self._anywhere.append((rank, pattern, payload, ()))
                continue
            for op in pattern.roots:
                self._by_op.setdefault(op, []).append((rank, pattern, payload, pattern.needs(op)))

    def candidates(self, view: GraphView, node: Node) -> Iterator[tuple[Pattern, T]]:
        """Patterns worth a try at `node`, best first."""
        reading = view.read(node)
        bucket = self._by_op.get(reading.op)
        if bucket is None and not self._anywhere:
            return
        if node.op in ("placeholder", "get_attr", "output") and bucket is None:
            return
        entries = bucket or []
        if self._anywhere:
            entries = sorted([*entries, *self._anywhere], key=lambda e: e[0])
        feeding: set[Op] | None = None
        for _, pattern, payload, needs in entries:
            if needs:
                if feeding is None:
                    feeding = {view.read(source).op for source in node.all_input_nodes}
                if any(kinds.isdisjoint(feeding) for kinds in needs):
                    continue
            yield pattern, payload
