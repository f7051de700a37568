"""Terms: what a pattern is made of. Frozen, hashed by identity, each knows the line it was written on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from qfx.errors import PatternError
from qfx.ops import Op

Predicate = Callable[..., Any]
_INTERNAL = ("qfx.patterns", "qfx.ops")


def here() -> str:
    """``file:line`` of the nearest caller outside the pattern language."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(_INTERNAL):
        if str(frame.f_globals.get("__name__", "")).startswith("qfx.patterns.catalogue"):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclass(frozen=True, eq=False)
class Term:
    """What every term can do: be an argument of an op, be constrained."""

    where_: tuple[Predicate, ...] = field(default=(), kw_only=True)
    line: str = field(default_factory=here, kw_only=True)

    def __qfx_op__(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpTerm:
        return OpTerm.build(op, args, kwargs)

    def where(self, predicate: Predicate) -> Any:
        """Match only what `predicate` accepts: a pure function of the value, returning a bool or a `Reject`."""
        return replace(self, where_=(*self.where_, predicate))

    def named(self, name: str) -> OpTerm:
        """Only op calls have a name; a capture is named already, an alternative has a tag."""
        raise PatternError(
            f"{self.line}: .named({name!r}) on something that is not an op call; use the capture's own name, or tag="
        )

    def keep(self) -> OpTerm:
        """Only op calls can be kept."""
        raise PatternError(f"{self.line}: .keep() on something that is not an op call")


@dataclass(frozen=True, eq=False)
class Capture(Term):
    """A parameter of the pattern function: binds whatever stands there. `optional`: may be absent, binds None."""

    name: str = ""
    optional: bool = False


@dataclass(frozen=True, eq=False)
class Const(Term):
    """A number, compared within a relative tolerance."""

    value: Any = None
    tol: float = 0.0


@dataclass(frozen=True, eq=False)
class Anything(Term):
    """Matches any value and binds nothing: the wildcard of backend configs."""


@dataclass(frozen=True, eq=False)
class OpTerm(Term):
    """A call of an op.

    Attributes:
        op: the canonical op.
        inputs: one term or literal an input, in the op's order; None where the input must be absent.
        attrs: constrained attributes: literal, `Const` or `Capture`.
        name: what the match calls the node.
        kept: inner node that may have users outside the match.
        spelled: only these targets or classes (a backend config that names a spelling).
        loose: input positions beyond those given are not looked at (a backend config speaks of calls, not of inputs).
    """

    op: Op = None  # type: ignore[assignment]
    inputs: tuple[Any, ...] = ()
    attrs: tuple[tuple[str, Any], ...] = ()
    name: str | None = None
    kept: bool = False
    spelled: frozenset[Any] | None = None
    loose: bool = False
    literals: tuple[tuple[str, Any], ...] = field(init=False, default=())
    """The constrained attributes that the node alone decides: literals and predicates."""
    goals: tuple[tuple[str, Any], ...] = field(init=False, default=())
    """Those that bind something, last first."""
    unspoken: tuple[tuple[str, Any], ...] = field(init=False, default=())
    """Strict attributes of the op that the pattern does not speak of, and the default each must have."""

    def __post_init__(self) -> None:
        mentioned = {name for name, _ in self.attrs}
        strict = [] if self.op is None else [(name, attr) for name, attr in self.op.attrs.items() if attr.strict]
        self.__dict__.update(  # as frozen as the rest
            literals=tuple(each for each in self.attrs if not isinstance(each[1], Term)),
            goals=tuple(each for each in reversed(self.attrs) if isinstance(each[1], Term)),
            unspoken=tuple((name, attr.default) for name, attr in strict if name not in mentioned),
        )

    @staticmethod
    def build(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpTerm:
        """A term from a call in a pattern body: inputs first, then attributes, by position or name.

        Raises:
            PatternError: unknown or surplus arguments, or a missing required input.
        """
        names, line = op.names, here()
        if op.opaque:
            return OpTerm(op=op, inputs=tuple(args), attrs=tuple(kwargs.items()), line=line)
        if len(args) > len(names):
            raise PatternError(f"{line}: {op} takes {len(names)} arguments ({', '.join(names)}), {len(args)} given")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise PatternError(f"{line}: {op} has no input or attribute {name!r}; it has {', '.join(names)}")
            if name in given:
                raise PatternError(f"{line}: {op} is given {name!r} twice")
            given[name] = value
        n = len(op.inputs)
        missing = [name for name in names[:n] if name not in given and name not in op.optional]
        if missing:
            raise PatternError(f"{line}: {op} needs {', '.join(missing)}")
        inputs = tuple(_frozen(given.get(name)) for name in names[:n])
        attrs = tuple((name, _attribute(op, name, given[name])) for name in names[n:] if name in given)
        return OpTerm(op=op, inputs=inputs, attrs=attrs, line=line)

    def named(self, name: str) -> OpTerm:
        """Let rules speak of the matched node as ``m.<name>``."""
        return replace(self, name=name)

    def keep(self) -> OpTerm:
        """Allow users outside the match; the node then stays in the graph."""
        return replace(self, kept=True)


@dataclass(frozen=True, eq=False)
class AnyOf(Term):
    """Alternatives, tried in order and completely. `tag` binds the name of the branch (or, for `maybe`, its node)."""

    branches: tuple[tuple[str, Any], ...] = ()
    tag: str | None = None
    binds_node: bool = False
    heads: tuple[frozenset[Op] | None, ...] = field(init=False, default=())
    """For each branch the ops it can start with, or None where it can start with anything."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(heads_of(branch) for _, branch in self.branches))


def branches_of(term: Any) -> Iterator[Any]:
    """What `term` may be, alternatives inside alternatives laid out flat, in order."""
    stack = [term]
    while stack:
        each = stack.pop()
        if isinstance(each, AnyOf):
            stack.extend(branch for _, branch in reversed(each.branches))
        else:
            yield each


def heads_of(term: Any) -> frozenset[Op] | None:
    """The ops a match of `term` can start with; None when it may be anything, or something that is no op call."""
    found: set[Op] = set()
    if isinstance(term, AnyOf) and term.heads:
        for heads in term.heads:
            if heads is None:
                return None
            found |= heads
        return frozenset(found)
    for branch in branches_of(term):
        if not isinstance(branch, OpTerm):
            return None
        found.add(branch.op)
    return frozenset(found)


def any_of(*, tag: str | None = None, **branches: Any) -> AnyOf:
    """One of several forms: ``any_of(tag="scaling", div=ops.div(s, c), mul=ops.mul(s, c), none=s)``.

    Args:
        tag: name the match binds the chosen branch's name to.
        branches: name of the branch and its term; tried in order, all of them.

    Raises:
        PatternError: fewer than two branches.
    """
    if len(branches) < 2:
        raise PatternError(f"{here()}: any_of needs two branches or more; write the term itself for one")
    return AnyOf(branches=tuple(branches.items()), tag=tag)


def maybe(op: Op | Callable[[Any], Any], term: Any, *, tag: str | None = None) -> AnyOf:
    """`term`, with or without `op` around it; ``m.<tag>`` is the node of `op`, or None.

    Example: ``maybe(ops.relu, ops.conv2d(x, w, b), tag="relu")``.
    """
    outer = op(term)
    return AnyOf(branches=(("with", outer), ("without", term)), tag=tag, binds_node=True)


def const(value: float, tol: float = 0.0) -> Const:
    """A number within a relative tolerance (1e-6 for a constant that went through float32)."""
    return Const(value=value, tol=tol)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _attribute(op: Op, name: str, value: Any) -> Any:
    return value if isinstance(value, Term) or callable(value) else op.normalize(name, value)
