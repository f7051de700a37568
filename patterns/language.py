"""``@pattern``: a plain function whose parameters are captures, run once at import."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qfx.errors import PatternError, QfxError
from qfx.ops import Op
from qfx.patterns.terms import AnyOf, Capture, Const, OpTerm, Term, heads_of

OF_MATCH = frozenset({"pattern", "view", "anchor", "bound", "node_of", "nodes", "once", "reading"})
"""What a match has besides the names its pattern binds."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """A pattern ready to match.

    Attributes:
        name: the function's name.
        anchor: the term the function returned; a rule's result replaces the node it matches.
        captures: names of the parameters, in order.
        names: every name a match binds (captures, ``.named``, tags).
        line: ``file:line`` of the function.
        roots: ops the anchor may be; None when it may be anything.
        size: number of op terms; longer patterns are tried first.
    """

    name: str
    anchor: Any
    captures: tuple[str, ...]
    names: frozenset[str]
    line: str
    roots: frozenset[Op] | None
    size: int
    uses: dict[str, int]

    @cached_property
    def unbound(self) -> dict[str, None]:
        """What a match starts from: every name, with nothing bound to it."""
        return dict.fromkeys(self.names)


def pattern(function: Callable[..., Any]) -> Pattern:
    """Make a pattern of a function; its parameters become captures, its result the anchor.

    A parameter with default None may be absent from the graph (a bias). The body runs once, here, so mistakes surface
    at import.

    Raises:
        PatternError: the body fails, returns no term, or leaves a parameter unused or a branch without it.

    Example:
        >>> from qfx import ops
        >>> @pattern
        ... def linear_relu(x, w, b=None):
        ...     return ops.relu(ops.linear(x, w, b).named("linear"))
        >>> sorted(linear_relu.names)
        ['b', 'linear', 'w', 'x']
    """
    code = getattr(function, "__code__", None)
    if code is None:
        raise PatternError(f"@pattern decorates a function whose parameters are captures, got {function!r}")
    line = f"{code.co_filename}:{code.co_firstlineno}"
    captures = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise PatternError(f"{line}: pattern {function.__name__}: *args and **kwargs cannot be captures")
        if parameter.default is not parameter.empty and parameter.default is not None:
            raise PatternError(
                f"{line}: pattern {function.__name__}: the only default a capture can have is None (may be absent)"
            )
        captures.append(Capture(name=parameter.name, optional=parameter.default is None, line=line))
    try:
        anchor = function(*captures)
    except QfxError:
        raise
    except Exception as error:
        raise PatternError(
            f"{line}: the body of pattern {function.__name__} raised {type(error).__name__}: {error}"
        ) from error
    return from_term(function.__name__, anchor, line, captures)


def from_term(name: str, anchor: Any, line: str, captures: list[Capture]) -> Pattern:
    """A pattern from a term built by hand (backend configs are compiled this way); checks it as `pattern` does."""
    if not isinstance(anchor, Term) or isinstance(anchor, Const):
        raise PatternError(
            f"{line}: pattern {name} must return one term, got {anchor!r}; a tuple of outputs is not a pattern"
        )
    counts: dict[str, int] = {}
    bound: set[str] = set()
    size = 0
    seen: set[int] = set()
    for term in walk(anchor):
        if isinstance(term, Capture):
            counts[term.name] = counts.get(term.name, 0) + 1
        label = term.name if isinstance(term, OpTerm) else term.tag if isinstance(term, AnyOf) else None
        if id(term) in seen:
            continue
        seen.add(id(term))
        size += isinstance(term, OpTerm)
        if label is not None:
            if label in {c.name for c in captures}:
                raise PatternError(
                    f"{term.line}: {label!r} is both a capture of pattern {name} and a name or tag in it"
                )
            bound.add(label)
    unused = [c.name for c in captures if c.name not in counts]
    if unused:
        raise PatternError(
            f"{line}: pattern {name} never uses {', '.join(unused)}; a capture must be reachable from the result"
        )
    always = _always_bound(anchor)
    for capture in captures:
        if capture.name not in always and not capture.optional:
            raise PatternError(
                f"{line}: pattern {name} binds {capture.name!r} in one branch only; "
                "give it the default None or use it in every branch"
            )
    names = frozenset(bound | set(counts))
    taken = names & OF_MATCH
    if taken:
        raise PatternError(
            f"{line}: pattern {name} binds {', '.join(sorted(map(repr, taken)))}, which every match has for itself; "
            "call it something else"
        )
    return Pattern(name, anchor, tuple(c.name for c in captures), names, line, heads_of(anchor), size, counts)


def walk(term: Any) -> Iterator[Any]:
    """Every term below, as often as it is reachable; explicit stack, so depth does not matter."""
    stack = [term]
    while stack:
        each = stack.pop()
        if isinstance(each, tuple):
            stack.extend(each)
        elif isinstance(each, Term):
            yield each
            if isinstance(each, OpTerm):
                stack.extend(each.inputs)
                stack.extend(value for _, value in each.attrs)
            elif isinstance(each, AnyOf):
                stack.extend(branch for _, branch in each.branches)


def _always_bound(anchor: Any) -> set[str]:
    """Captures every alternative binds: a union over arguments, an intersection over branches (post-order)."""
    done: dict[int, set[str]] = {}
    stack: list[tuple[Any, bool]] = [(anchor, False)]
    while stack:
        term, ready = stack.pop()
        children = _children(term)
        if not ready:
            stack.append((term, True))
            stack.extend((child, False) for child in children if id(child) not in done)
            continue
        if isinstance(term, Capture):
            done[id(term)] = {term.name}
        elif isinstance(term, AnyOf):
            done[id(term)] = set.intersection(*(done[id(child)] for child in children))
        else:
            done[id(term)] = set().union(*(done[id(child)] for child in children))
    return done[id(anchor)]


def _children(term: Any) -> tuple[Any, ...]:
    if isinstance(term, tuple):
        return term
    if isinstance(term, OpTerm):
        return (*term.inputs, *(value for _, value in term.attrs))
    return tuple(branch for _, branch in term.branches) if isinstance(term, AnyOf) else ()
