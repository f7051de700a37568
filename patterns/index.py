"""Which patterns can have their anchor at a node: a tree of the ops along the first input, from the anchor up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from torch.fx import Node

from qfx.graph import GraphView
from qfx.ops import Op
from qfx.patterns.language import Pattern
from qfx.patterns.terms import AnyOf, OpTerm, branches_of, heads_of

T = TypeVar("T")
_Spine = tuple[Op, ...]

# A pattern with more ways up than this is filed under the beginnings they share.
_MOST_SPINES = 128


class _Level(Generic[T]):
    """Patterns whose spine ends here, and where longer spines go on."""

    __slots__ = ("entries", "next")

    def __init__(self) -> None:
        self.entries: list[tuple[int, Pattern, T]] = []
        self.next: dict[Op, _Level[T]] = {}

    def below(self) -> Iterator[tuple[int, Pattern, T]]:
        stack = [self]
        while stack:
            level = stack.pop()
            yield from level.entries
            stack.extend(level.next.values())


class Index(Generic[T]):
    """Patterns filed by their *spines*: the ops met from the anchor along first inputs.

    Looking up a node walks its own first inputs as far as some spine goes, so the patterns that cannot match for the
    ops there are never tried, and N patterns over M nodes cost about O(M). A node that fits the beginning of a spine
    and no whole one still gets the patterns of that beginning: their near misses say why nothing matched. Order:
    priority (lower first), longer patterns first, declaration.
    """

    def __init__(self, entries: Iterable[tuple[Pattern, int, T]]) -> None:
        ordered = sorted(enumerate(entries), key=lambda e: (e[1][1], -e[1][0].size, e[0]))
        self._root: _Level[T] = _Level()
        self._anywhere: list[tuple[int, Pattern, T]] = []
        for rank, (_, (pattern, _, payload)) in enumerate(ordered):
            if pattern.roots is None:
                self._anywhere.append((rank, pattern, payload))
                continue
            for spine in _spines(pattern.anchor):
                level = self._root
                for op in spine:
                    level = level.next.setdefault(op, _Level())
                level.entries.append((rank, pattern, payload))

    def candidates(self, view: GraphView, node: Node) -> Iterator[tuple[Pattern, T]]:
        """Patterns worth a try at `node`, best first."""
        level, depth, found = self._root, 0, []
        at: Any = node
        while isinstance(at, Node):
            reading = view.read(at)
            following = level.next.get(reading.op)
            if following is None:
                break
            level, depth = following, depth + 1
            found.extend(level.entries)
            at = reading.inputs[0] if reading.inputs else None
        if not found and depth > 1:
            found.extend(level.below())
        if self._anywhere and (depth or node.op not in ("placeholder", "get_attr", "output")):
            found.extend(self._anywhere)
        before = -1
        for rank, pattern, payload in sorted(found, key=_rank) if len(found) > 1 else found:
            if rank != before:  # several spines of one pattern may lie below
                before = rank
                yield pattern, payload


def _rank(entry: tuple[int, Any, Any]) -> int:
    return entry[0]


def _spines(anchor: Any) -> set[_Spine]:
    """Every sequence of ops a match can show along first inputs, as far as that is certain."""
    growing: list[tuple[_Spine, Any]] = [((), anchor)]
    done: set[_Spine] = set()
    while growing:
        spine, term = growing.pop()
        if not isinstance(term, OpTerm | AnyOf) or heads_of(term) is None:
            done.add(spine)
            continue
        if len(done) + len(growing) > _MOST_SPINES and spine:
            done.add(spine)
            continue
        for branch in branches_of(term):
            # Either input of a commutative op may come first, so the spine ends with it.
            onward = branch.inputs[0] if branch.inputs and not branch.op.commutative else None
            growing.append(((*spine, branch.op), onward))
    return done
