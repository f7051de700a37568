"""Rules: a pattern, a guard and a function that builds what stands there instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qfx.errors import PatternError
from qfx.graph import Param
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
        """The first guard that says no, or True."""
        for guard in self.guards:
            verdict = guard(found)
            if verdict is not True:
                if isinstance(verdict, Reject):
                    return verdict
                return Reject(f"refused by {getattr(guard, '__name__', guard)}", found.anchor)
        return True


def rule(
    pattern: Pattern, *, where: Guard | tuple[Guard, ...] | list[Guard] = (), priority: int = 0
) -> Callable[[Action], Rule]:
    """Make a rule of a function ``(m, g) -> node``.

    Args:
        pattern: where it applies.
        where: one guard or several, on the match.
        priority: lower goes first.

    Raises:
        PatternError: `pattern` is no pattern, or the function does not take (m, g).

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

    def make(function: Action) -> Rule:
        line = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
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
