"""Passes and pipelines: rules swept over a graph, with the facts each step needs and gives."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult

from qfx import tracing
from qfx.errors import ConfigError, NonTermination, PassError, QfxError, RuleError
from qfx.graph import GraphView
from qfx.graph.check import fault
from qfx.graph.copying import copied
from qfx.graph.provenance import describe, stamp
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule
from qfx.patterns import Index, Match
from qfx.patterns.matcher import BUDGET, match

Fact = Literal["normalized", "bn_folded", "annotated", "observed", "calibrated", "converted", "lowered"]
REFIRE_LIMIT = 8
RULE_KEY = "qfx_rule"


@dataclass(slots=True)
class RuleLog:
    """What one rule did in one pass; near misses are plain text by node name."""

    line: str
    applied: int = 0
    tried: int = 0
    misses: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PassLog:
    """What one pass did: per rule, and how many matcher steps it took over how many nodes."""

    name: str
    rules: dict[str, RuleLog] = field(default_factory=dict)
    steps: int = 0
    nodes: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    changed: bool = False


@dataclass(slots=True)
class Context:
    """What passes of one pipeline share: the view, the rewriter, the log."""

    view: GraphView
    rewriter: Rewriter
    logs: list[PassLog] = field(default_factory=list)

    @staticmethod
    def of(gm: GraphModule) -> Context:
        """A fresh context for a graph module."""
        view = GraphView(gm)
        return Context(view, Rewriter(gm, view))


class Step(Protocol):
    """A pass as a pipeline sees it."""

    @property
    def name(self) -> str:
        """Shown in traces, reports and errors."""

    @property
    def requires(self) -> frozenset[Fact]:
        """Facts that must hold before."""

    @property
    def provides(self) -> frozenset[Fact]:
        """Facts that hold afterwards."""

    def run(self, gm: GraphModule, context: Context) -> PassLog:
        """Do the work, in place."""


@dataclass(frozen=True)
class Pass:
    """Rules swept over the graph in reverse topological order; the first rule that applies at a node wins.

    Args:
        name: shown in traces, reports and errors.
        rules: the rules.
        requires: facts that must hold before.
        provides: facts that hold afterwards.
        until: ``"once"`` visits each node once; ``"fixpoint"`` also revisits new nodes and their users until nothing
            applies, and stops a rule that keeps firing on its own output.
        keep_misses: remember why each candidate did not match, as text.

    Called like a ``torch.fx`` pass, ``gm -> PassResult``; the graph module is changed in place.
    """

    name: str
    rules: tuple[Rule, ...]
    requires: frozenset[Fact] = frozenset()
    provides: frozenset[Fact] = frozenset()
    until: Literal["once", "fixpoint"] = "once"
    keep_misses: bool = False
    budget: int = BUDGET

    def __call__(self, gm: GraphModule) -> PassResult:
        """Run on a graph module, in place, as ``torch.fx`` passes do."""
        return run_steps(gm, (self,))

    def run(self, gm: GraphModule, context: Context) -> PassLog:
        """Sweep; see the class."""
        log = PassLog(self.name, {rule.name: RuleLog(rule.line) for rule in self.rules})
        index = self._index
        todo = deque(reversed(gm.graph.nodes))
        fired: dict[tuple[Rule, str], int] = {}
        while todo:
            node = todo.popleft()
            if node._erased:
                continue
            log.nodes += 1
            created = self._visit(node, index, context, log, fired)
            if created and self.until == "fixpoint":
                again = {n for new in created if not new._erased for n in (new, *new.users)}
                todo.extendleft(again)
        context.rewriter.drop_orphans()
        log.renamed = dict(context.rewriter.renamed)
        log.changed = any(entry.applied for entry in log.rules.values())
        return log

    @cached_property
    def _index(self) -> Index[Rule]:
        return Index((rule.pattern, rule.priority, rule) for rule in self.rules)

    def _visit(
        self, node: Node, index: Index[Rule], context: Context, log: PassLog, fired: dict[tuple[Rule, str], int]
    ) -> list[Node]:
        for pattern, rule in index.candidates(context.view, node):
            entry = log.rules[rule.name]
            entry.tried += 1
            outcome = match(pattern, context.view, node, where=rule.where, budget=self.budget)
            log.steps += outcome.steps
            if outcome.match is None:
                if self.keep_misses and outcome.miss is not None:
                    entry.misses[node.name] = str(outcome.miss)
                continue
            name = node.name
            created = fire(rule, outcome.match, context.rewriter, self.name)
            if created is None:
                continue
            entry.applied += 1
            self._guard(rule, name, created, fired)
            return created
        return []

    def _guard(self, rule: Rule, anchor: str, created: list[Node], fired: dict[tuple[Rule, str], int]) -> None:
        # A node a rule made counts the firings that led to it; a rule re-firing on its own output grows the count.
        count = fired.get((rule, anchor), 0) + 1
        if count > REFIRE_LIMIT:
            raise NonTermination(
                f"rule {rule.name} ({rule.line}) fired {count} times on its own output, last at {anchor}; in pass "
                f"{self.name}. Make its pattern refuse what it produces, or use until='once'."
            )
        for node in created:
            fired[(rule, node.name)] = count


def fire(rule: Rule, found: Match, g: Rewriter, pass_name: str) -> list[Node] | None:
    """Run one rule at one match; the nodes it made, or None if it declined. Rolls back if it raises.

    Raises:
        RuleError: the rule raised or returned something unusable.
    """
    tracing_on, start = tracing.active(), time.perf_counter()
    before = tuple(n.format_node() or n.name for n in reversed(found.nodes)) if tracing_on else ()
    name = found.anchor.name
    g.begin(found)
    try:
        with g.gm.graph.inserting_before(found.anchor):
            result = rule.action(found, g)
        if result is None:
            g.rollback()
            return None
        g.commit(result)
    except Exception as error:
        g.rollback()
        if isinstance(error, QfxError) and not isinstance(error, RuleError):
            raise
        where = describe(found.anchor)
        raise RuleError(f"rule {rule.name} ({rule.line}) raised at {where} in pass {pass_name}: {error}") from error
    created = [node for node in g.created if not node._erased]
    for node in created:
        node.meta[RULE_KEY] = rule.name
    if tracing_on:
        after = tuple(n.format_node() or n.name for n in created)
        micros = (time.perf_counter() - start) * 1e6
        tracing.record(tracing.Event(pass_name, rule.name, rule.line, name, before, after, round(micros, 1)))
    return created


@dataclass(frozen=True)
class FunctionPass:
    """A pass that walks the graph itself: ``function(gm, context) -> changed``."""

    name: str
    function: Callable[[GraphModule, Context], bool]
    requires: frozenset[Fact] = frozenset()
    provides: frozenset[Fact] = frozenset()

    def __call__(self, gm: GraphModule) -> PassResult:
        """Run on a graph module, in place, as ``torch.fx`` passes do."""
        return run_steps(gm, (self,))

    def run(self, gm: GraphModule, context: Context) -> PassLog:
        """Run the function."""
        changed = self.function(gm, context)
        context.rewriter.drop_orphans()
        return PassLog(self.name, nodes=len(gm.graph.nodes), renamed=dict(context.rewriter.renamed), changed=changed)


@dataclass(frozen=True)
class Pipeline:
    """Passes in order, checked once: whatever one requires, an earlier one provides.

    Raises:
        PassError: a requirement nobody fulfils.
    """

    name: str
    steps: tuple[Step, ...]
    given: frozenset[Fact] = frozenset()

    def __post_init__(self) -> None:
        facts = set(self.given)
        for step in self.steps:
            missing = step.requires - facts
            if missing:
                have = ", ".join(sorted(facts)) or "nothing"
                needs = ", ".join(sorted(missing))
                raise PassError(f"pipeline {self.name}: pass {step.name} needs {needs}; before it there is {have}")
            facts |= step.provides

    def __call__(self, gm: GraphModule) -> PassResult:
        """Run on a graph module, in place, as ``torch.fx`` passes do."""
        return run_steps(gm, self.steps)


def run_steps(gm: GraphModule, steps: Sequence[Step], context: Context | None = None) -> PassResult:
    """Run passes in order on a graph module, in place; dead code and a check once a pass, recompile once.

    Args:
        gm: what is changed.
        steps: the passes.
        context: shared with earlier runs on the same graph module.

    Raises:
        PassError: a pass failed in a way it did not foresee; names the passes that had run.
    """
    context = context or Context.of(gm)
    changed = False
    for step in steps:
        try:
            log = step.run(gm, context)
        except QfxError:
            raise
        except Exception as error:
            ran = ", ".join(entry.name for entry in context.logs) or "none"
            raise PassError(
                f"pass {step.name} failed: {type(error).__name__}: {error} (passes before it: {ran})"
            ) from error
        context.logs.append(log)
        if log.changed:
            changed = True
            drop_dead_code(gm, context)
            broken = fault(gm)
            if broken is not None:
                raise PassError(f"pass {step.name} left a graph that cannot run: {broken}")
    if changed:
        gm.recompile()
    return PassResult(gm, changed)


def drop_dead_code(gm: GraphModule, context: Context) -> None:
    """Erase nodes without users, keeping whatever writes to memory or checks something."""
    for node in reversed(gm.graph.nodes):
        if node.users or node.op in ("placeholder", "output"):
            continue
        if node.is_impure() or context.view.read(node).mutates or context.view.read(node).op.name == "assert":
            continue
        context.rewriter.erase_if_unused(node)
    context.rewriter.drop_orphans()


def _check_arguments(gm: Any, rules: Any, until: Any) -> None:
    if not isinstance(gm, GraphModule):
        raise ConfigError(
            f"rewrite takes a GraphModule, got {type(gm).__name__}; make one by torch.fx.symbolic_trace(model), or by "
            "torch.export.export(model, inputs).module()"
        )
    if isinstance(rules, Rule) or not isinstance(rules, Sequence):
        raise ConfigError(
            f"rewrite takes a list of rules, got {getattr(rules, 'name', type(rules).__name__)}; write [it]"
        )
    for each in rules:
        if not isinstance(each, Rule):
            raise ConfigError(f"rewrite takes rules made with @qfx.rule(pattern), got {each!r}")
    if until not in ("once", "fixpoint"):
        raise ConfigError(f"until= is 'once' or 'fixpoint', got {until!r}")


def rewrite(
    gm: GraphModule, rules: Sequence[Rule], *, until: Literal["once", "fixpoint"] = "once", name: str = "rewrite"
) -> GraphModule:
    """Apply your own rules to a copy of a graph module.

    Args:
        gm: an fx graph module, from `symbolic_trace` or `torch.export`; it is not changed.
        rules: made with `@rule`.
        until: ``"once"`` or ``"fixpoint"``.
        name: shown in traces and errors.

    Returns:
        A rewritten copy; ``result.meta["qfx_logs"]`` tells what each rule did.

    Raises:
        ConfigError: `gm` is no graph module, `rules` no list of rules, or there is no such `until`.
        RuleError: a rule or its guard raised, or returned something unusable.

    Example:
        >>> simpler = qfx.rewrite(gm, [one_relu])  # doctest: +SKIP
    """
    _check_arguments(gm, rules, until)
    result = copied(gm)
    stamp(result)
    context = Context.of(result)
    run_steps(result, (Pass(name, tuple(rules), until=until, keep_misses=True),), context)
    result.meta["qfx_logs"] = context.logs
    return result
