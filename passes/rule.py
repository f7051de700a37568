"""Rules: a pattern, a guard and a function that builds what stands there instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qfx.errors import PatternError, QfxError, RuleError
from qfx.graph import Param
from qfx.graph.provenance import describe
from qfx.passes.rewriter import Rewriter
from qfx.patterns import Match, Pattern
from qfx.reject import Reject

Guard = Callable[[Match], "bool | Reject"]
Action = Callable[[Match, Rewriter], Any]


@dataclass(frozen=True, eq=False)
class Rule:
    """A rewrite rule; make one with `rule`.

    Attributes:
        name: the function's name, shown in traces and reports.
        pattern: where it applies.
        action: ``(m, g) -> node``; None means "not here after all".
        guards: predicates of the match; each returns a bool or a `Reject` with the reason.
        priority: lower goes first; then longer patterns, then declaration order.
        line: ``file:line`` of the function.
    """

    name: str
    pattern: Pattern
    action: Action
    guards: tuple[Guard, ...]
    priority: int
    line: str

    def where(self, found: Match) -> bool | Reject:
        """The first guard that says no, or True.

        Raises:
            RuleError: a guard raised, or answered with something else than a bool or a `Reject`.
        """
        for guard in self.guards:
            try:
                verdict = guard(found)
            except QfxError:
                raise
            except Exception as error:
                said = f"raised {type(error).__name__}: {error}"
                raise RuleError(self._wrong(guard, found, said)) from error
            if verdict is True:
                continue
            if isinstance(verdict, Reject):
                return verdict
            if verdict is not False:
                raise RuleError(self._wrong(guard, found, f"returned {verdict!r}, not a bool or a Reject"))
            return Reject(f"refused by {getattr(guard, '__name__', guard)}", found.anchor)
        return True

    def _wrong(self, guard: Guard, found: Match, said: str) -> str:
        name = getattr(guard, "__name__", repr(guard))
        return f"rule {self.name} ({self.line}): its guard {name} {said}, at {describe(found.anchor)}"


def rule(
    pattern: Pattern, *, where: Guard | tuple[Guard, ...] | list[Guard] = (), priority: int = 0
) -> Callable[[Action], Rule]:
    """Make a rule of a function ``(m, g) -> node``.

    Args:
        pattern: where it applies.
        where: one guard or several, on the match.
        priority: lower goes first.

    Raises:
        PatternError: `pattern` is no pattern, a guard cannot be called, or the function does not take (m, g).

    Example:
        >>> from qfx import ops
        >>> from qfx.patterns import pattern
        >>> @pattern
        ... def double_relu(x):
        ...     return ops.relu(ops.relu(x))
        >>> @rule(double_relu)
        ... def one_relu(m, g):
        ...     return g.call(ops.relu, m.x)
    """
    guards = tuple(where) if isinstance(where, list | tuple) else (where,)
    strange = [guard for guard in guards if not callable(guard)]
    if strange:
        raise PatternError(f"where= takes functions of the match, got {strange[0]!r}")
    if not isinstance(priority, int):
        raise PatternError(f"priority= is a whole number, lower goes first; got {priority!r}")

    def make(function: Action) -> Rule:
        code = getattr(function, "__code__", None)
        if code is None:
            raise PatternError(f"@rule decorates a function (m, g), got {function!r}")
        line = f"{code.co_filename}:{code.co_firstlineno}"
        if not isinstance(pattern, Pattern):
            raise PatternError(f"{line}: @rule takes a @pattern, got {pattern!r}")
        if len(inspect.signature(function).parameters) != 2:
            raise PatternError(f"{line}: rule {function.__name__} must take (m, g): the match and the rewriter")
        return Rule(function.__name__, pattern, function, guards, priority, line)

    return make


def owned(*names: str) -> Guard:
    """Guard: the matched site is the only reader of these parameters (no tied weight, no module called twice)."""

    def owned_(found: Match) -> bool | Reject:
        for name in names:
            value = getattr(found, name)
            if value is None:
                continue
            if not isinstance(value, Param):
                return Reject(f"{name} is computed ({value!r}), not a parameter", found.anchor)
            readers = found.view.readers(value)
            if len(readers) > 1:
                others = ", ".join(node.name for node, _ in readers)
                return Reject(f"parameter {value.fqn} is read {len(readers)} times ({others})", found.anchor)
        return True

    return owned_
