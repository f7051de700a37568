"""Solve one pattern at one node: complete backtracking on an explicit stack, a reason for every no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.fx import Node

from qfx.graph import GraphView, Param, Reading
from qfx.patterns.language import Pattern
from qfx.patterns.match import Match, NearMiss
from qfx.patterns.terms import AnyOf, Anything, Capture, Const, OpTerm, Term
from qfx.reject import Reject

BUDGET = 10_000

# Goals are a persistent linked list, so a choice point costs one reference: (term, value, rest).
Goals = tuple[Any, Any, Any] | None
_UNBOUND: Any = object()


@dataclass(frozen=True, slots=True)
class _Bind:
    """A goal that binds a tag; `value` _UNBOUND means the node of the goal itself."""

    name: str
    value: Any


class _Search:
    """The state of one search: bindings with an undo trail, and the best partial match so far."""

    __slots__ = (
        "anchor", "best", "bound", "choices", "node_of", "pattern", "progress", "region", "steps", "trail", "view",
    )  # fmt: skip

    def __init__(self, pattern: Pattern, view: GraphView, anchor: Node) -> None:
        self.pattern, self.view, self.anchor = pattern, view, anchor
        self.region = view.region(anchor)
        self.bound: dict[str, Any] = {}
        self.node_of: dict[OpTerm, Node] = {}
        self.trail: list[tuple[dict[Any, Any], Any]] = []
        self.choices: list[tuple[Goals, int]] = []
        self.steps = 0
        self.best: NearMiss | None = None
        self.progress = (-1, -1)

    # -- bookkeeping -----------------------------------------------------------------------------------------------
    def bind(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        table[key] = value
        self.trail.append((table, key))

    def undo(self, mark: int) -> None:
        while len(self.trail) > mark:
            table, key = self.trail.pop()
            del table[key]

    def fail(self, reject: Reject) -> Goals | bool:
        # The attempt that bound most got furthest; of equals the first, which follows the order the user wrote.
        progress = (len(self.node_of), len(self.trail))
        if progress > self.progress:
            self.progress = progress
            self.best = NearMiss(self.pattern, self.anchor, tuple(self.node_of.values()), reject)
        return False

    # -- the loop --------------------------------------------------------------------------------------------------
    def run(self, budget: int) -> Iterator[Match]:
        goals: Goals = (self.pattern.anchor, self.anchor, None)
        while True:
            if goals is None:
                escaped = self.escapes()
                if escaped is None:
                    yield Match(self.pattern, self.view, self.anchor, dict(self.bound), dict(self.node_of))
                else:
                    self.fail(escaped)
                solved: Goals | bool = False
            else:
                self.steps += 1
                if self.steps > budget:
                    self.fail(
                        Reject(
                            f"gave up after {budget} steps; the pattern has too many orders to try here", self.anchor
                        )
                    )
                    return
                term, value, rest = goals
                solved = _SOLVERS.get(type(term), _Search.solve_literal)(self, term, value, rest)
            if solved is False:
                if not self.choices:
                    return
                goals, mark = self.choices.pop()
                self.undo(mark)
            else:
                goals = solved  # type: ignore[assignment]

    # Each gives the goals left after its own, or False.
    def solve_bind(self, term: _Bind, value: Any, rest: Goals) -> Goals | bool:
        self.bind(self.bound, term.name, self.view.read(value) if term.value is _UNBOUND else term.value)
        return rest

    def solve_anything(self, term: Anything, value: Any, rest: Goals) -> Goals | bool:
        return rest

    def solve_list(self, term: tuple[Any, ...], value: Any, rest: Goals) -> Goals | bool:
        if not isinstance(value, tuple) or len(value) != len(term):
            return self.fail(Reject(lambda: f"expected a list of {len(term)}, found {value!r}", self.anchor))
        return _push(term, value, rest)

    def solve_literal(self, term: Any, value: Any, rest: Goals) -> Goals | bool:
        if self.literal(term, value):
            return rest
        return self.fail(Reject(lambda: f"expected {_show(term)}, found {value!r}", self.anchor))

    def literal(self, term: Any, value: Any) -> bool:
        if isinstance(term, Const):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and abs(value - term.value) <= term.tol * abs(term.value)
        return _same(term, value)

    def solve_capture(self, term: Capture, value: Any, rest: Goals) -> Goals | bool:
        before = self.bound.get(term.name, _UNBOUND)
        if before is not _UNBOUND:
            if _same(before, value):
                return rest
            return self.fail(
                Reject(lambda: f"{term.name!r} is {before!r} in one place and {value!r} in another", self.anchor)
            )
        if value is None and not term.optional:
            return self.fail(Reject(f"there is no {term.name!r} here", self.anchor))
        refused = self.refused(term, value) if term.where_ and value is not None else None
        if refused is not None:
            return self.fail(refused)
        self.bind(self.bound, term.name, value)
        return rest

    def solve_any(self, term: AnyOf, value: Any, rest: Goals) -> Goals | bool:
        refused = self.refused(term, value) if term.where_ else None
        if refused is not None:
            return self.fail(refused)
        alternatives = []
        op = self.view.read(value).op if isinstance(value, Node) else None
        for (name, branch), heads in zip(term.branches, term.heads, strict=True):
            if heads is not None and op not in heads:
                continue  # its first step would say no
            after: Goals = rest
            if term.tag is not None:
                found = name if not term.binds_node else (_UNBOUND if name == "with" else None)
                after = (_Bind(term.tag, found), value, rest)
            alternatives.append((branch, value, after))
        if not alternatives:
            expected = sorted({str(head) for heads in term.heads for head in heads or ()})
            shown = f"{op} at {value}" if op is not None else repr(value)
            return self.fail(Reject(lambda: f"expected {' or '.join(expected)}, found {shown}", value))
        mark = len(self.trail)
        self.choices.extend((goals, mark) for goals in reversed(alternatives[1:]))
        return alternatives[0]

    def solve_op(self, term: OpTerm, value: Any, rest: Goals) -> Goals | bool:
        known = self.node_of.get(term)
        if known is not None:
            if known is value:
                return rest
            return self.fail(Reject(lambda: f"{term.op} is {known} in one place and {value!r} in another", known))
        if not isinstance(value, Node):
            return self.fail(Reject(lambda: f"expected {term.op}, found {value!r}", self.anchor))
        reading = self.view.read(value)
        reject = self.mismatch(term, reading)
        if reject is not None:
            return self.fail(reject)
        self.bind(self.node_of, term, value)
        if term.name is not None:
            self.bind(self.bound, term.name, reading)
        for name, wanted in term.goals:
            rest = (wanted, reading.attrs.get(name), rest)
        if term.op.commutative and _order_matters(term, reading, self.pattern):
            first, second, *others = term.inputs
            self.choices.append((_push((second, first, *others), reading.inputs, rest), len(self.trail)))
        return _push(term.inputs, reading.inputs, rest)

    def mismatch(self, term: OpTerm, reading: Reading) -> Reject | None:
        """Why this node is not this op call, looking at the node alone."""
        node = reading.node
        if reading.op is not term.op:
            return Reject(lambda: f"expected {term.op}, found {reading.op} at {node}", node)
        if term.spelled is not None and not self.spelled(term, node):
            return Reject(lambda: f"{node} is spelled {node.target!r}, not one of {_show(term.spelled)}", node)
        if self.view.region(node) != self.region:
            return Reject(lambda: f"an in-place op lies between {node} and {self.anchor}", node)
        if len(term.inputs) != len(reading.inputs) and not term.loose:
            return Reject(lambda: f"{node} has {len(reading.inputs)} inputs, the pattern {len(term.inputs)}", node)
        wrong = self.wrong_attribute(term, reading) if term.literals or term.unspoken else None
        return wrong if wrong is not None or not term.where_ else self.refused(term, reading)

    def wrong_attribute(self, term: OpTerm, reading: Reading) -> Reject | None:
        node = reading.node
        for name, wanted in term.literals:
            found = reading.attrs.get(name)
            if callable(wanted):
                verdict = wanted(found)
                if isinstance(verdict, Reject):
                    return verdict
                if not verdict:
                    return Reject(_later("{}: {}={!r} is refused by {}", node, name, found, wanted.__name__), node)
            elif not _same(wanted, found):
                return Reject(_later("{}: {}={!r}, the pattern wants {!r}", node, name, found, wanted), node)
        for name, default in term.unspoken:
            if not _same(default, reading.attrs.get(name)):
                text = "{}: {}={!r}, and the pattern does not speak of it"
                return Reject(_later(text, node, name, reading.attrs.get(name)), node)
        return None

    def spelled(self, term: OpTerm, node: Node) -> bool:
        target = type(self.view.module(str(node.target))) if node.op == "call_module" else node.target
        return target in (term.spelled or ())

    def refused(self, term: Term, value: Any) -> Reject | None:
        """The first predicate of `term` that says no."""
        for predicate in term.where_:
            verdict = predicate(value)
            if isinstance(verdict, Reject):
                return verdict
            if not verdict:
                name = getattr(predicate, "__name__", repr(predicate))
                return Reject(_later("{!r} is refused by {} ({})", value, name, term.line), value)
        return None

    def escapes(self) -> Reject | None:
        """An inner node somebody outside uses, unless its op is recomputable or the term says keep."""
        inside = set(self.node_of.values())
        for term, node in self.node_of.items():
            if node is self.anchor or term.kept or term.op.recomputable:
                continue
            for user in node.users:
                if user not in inside:
                    return Reject(_later("{} is also used by {}, outside the match", node, user), node)
        return None


_SOLVERS: dict[type, Callable[..., Goals | bool]] = {
    OpTerm: _Search.solve_op,
    Capture: _Search.solve_capture,
    AnyOf: _Search.solve_any,
    _Bind: _Search.solve_bind,
    Anything: _Search.solve_anything,
    tuple: _Search.solve_list,
}


def _later(text: str, *values: object) -> Callable[[], str]:
    """A reason that is formatted when somebody reads it."""
    return partial(text.format, *values)


def _push(terms: tuple[Any, ...], values: tuple[Any, ...], rest: Goals) -> Goals:
    """Goals that match each term with its value, then the rest; surplus on either side is left out."""
    for at in range(min(len(terms), len(values)) - 1, -1, -1):
        rest = (terms[at], values[at], rest)
    return rest


def _order_matters(term: OpTerm, reading: Reading, pattern: Pattern) -> bool:
    """Whether the inputs of a commutative op, swapped, could match otherwise than as written."""
    terms = term.inputs
    if len(terms) < 2 or reading.inputs[0] is reading.inputs[1]:
        return False
    return not all(isinstance(t, Capture) and pattern.uses.get(t.name) == 1 and not t.where_ for t in terms[:2])


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Node | Param) or isinstance(b, Node | Param):
        return False
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return (
        type(a) is type(b) and bool(a == b) if not isinstance(a, int | float) else isinstance(b, int | float) and a == b
    )


def _show(term: Any) -> str:
    if isinstance(term, Const):
        return f"{term.value} (within {term.tol})"
    if isinstance(term, frozenset):
        return ", ".join(sorted(getattr(t, "__name__", str(t)) for t in term))
    return repr(term)


@dataclass(slots=True)
class Outcome:
    """What a try gave: the match, or the nearest miss; and what it cost."""

    match: Match | None
    miss: NearMiss | None
    steps: int


def match(pattern: Pattern, view: GraphView, node: Node, *, where: Any = None, budget: int = BUDGET) -> Outcome:
    """Match `pattern` with its anchor at `node`.

    Args:
        pattern: what to look for.
        view: the graph.
        node: where the anchor must be.
        where: predicate of the whole match (bool or `Reject`); other ways to match are tried when it says no.
        budget: steps after which the search gives up and says so.

    Returns:
        The first match, or the best partial one with the reason it went no further.
    """
    search = _Search(pattern, view, node)
    for found in search.run(budget):
        verdict = True if where is None else where(found)
        if verdict is True:
            return Outcome(found, None, search.steps)
        search.fail(verdict if isinstance(verdict, Reject) else Reject("the rule's where refused the match", node))
    return Outcome(None, search.best, search.steps)


def matches(pattern: Pattern, view: GraphView, node: Node, *, budget: int = BUDGET) -> Iterator[Match]:
    """Every way `pattern` matches at `node`."""
    yield from _Search(pattern, view, node).run(budget)
