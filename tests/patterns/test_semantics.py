"""The meaning of patterns, one statement a test, on graphs of both captures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx import ops
from qfx.graph import GraphView
from qfx.patterns import Pattern, any_of, const, match, matches, maybe, pattern
from qfx.patterns.matcher import Outcome
from qfx.reject import Reject

X = torch.randn(2, 4, 4)
CAPTURES = pytest.mark.parametrize("captured", ["symbolic", "exported"])


class Wrapped(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def view_of(function: Callable[..., Any], captured: str) -> GraphView:
    model = Wrapped(function).eval()
    gm = torch.fx.symbolic_trace(model) if captured == "symbolic" else torch.export.export(model, (X,)).module()
    return GraphView(gm)


def last(view: GraphView) -> torch.fx.Node:
    """The node the graph returns (the first of several)."""
    (output,) = view.gm.graph.find_nodes(op="output")
    value = output.args[0]
    while isinstance(value, list | tuple):
        value = value[0]
    return value


def at_end(p: Pattern, function: Callable[..., Any], captured: str, **how: Any) -> Outcome:
    view = view_of(function, captured)
    return match(p, view, last(view), **how)


def reason(outcome: Outcome) -> str:
    assert outcome.match is None
    assert outcome.miss is not None
    return str(outcome.miss)


@CAPTURES
def test_a_term_used_twice_is_one_node(captured: str) -> None:
    @pattern
    def silu(x):
        s = ops.exp(x)
        return ops.add(s, ops.neg(s))

    def same(m: Any, x: Any) -> Any:
        s = x.exp()
        return s + torch.neg(s)

    assert at_end(silu, same, captured).match
    outcome = at_end(silu, lambda m, x: x.exp() + torch.neg(x.exp()), captured)
    assert "ops.exp is" in reason(outcome)
    assert "in one place and" in reason(outcome)


@CAPTURES
def test_captures_are_not_injective_but_a_repeated_one_is_one_value(captured: str) -> None:
    @pattern
    def attention(q, k):
        return ops.matmul(q, ops.transpose(k, -2, -1))

    @pattern
    def square(z):
        return ops.mul(z, z)

    found = at_end(attention, lambda m, x: x @ x.transpose(-2, -1), captured).match
    assert found is not None
    assert found.q is found.k
    assert at_end(square, lambda m, x: x * x, captured).match
    assert "'z' is x in one place and exp in another" in reason(at_end(square, lambda m, x: x * x.exp(), captured))


@CAPTURES
def test_commutativity_is_complete_even_nested(captured: str) -> None:
    # A committed choice for the inner add would bind p to x and never try y.
    @pattern
    def nested(p, q):
        return ops.add(ops.add(p, q), ops.neg(p))

    def flipped(m: Any, x: Any) -> Any:
        y = x.exp()
        return (x + y) + torch.neg(y)

    found = at_end(nested, flipped, captured).match
    assert found is not None
    assert (found.p.name, found.q.name) == ("exp", "x")


@CAPTURES
def test_sub_does_not_commute(captured: str) -> None:
    @pattern
    def left(x):
        return ops.sub(ops.exp(x), ops.neg(x))

    assert at_end(left, lambda m, x: x.exp() - torch.neg(x), captured).match
    assert "expected ops.exp, found ops.neg" in reason(at_end(left, lambda m, x: torch.neg(x) - x.exp(), captured))


@CAPTURES
def test_an_inner_node_used_outside_rejects(captured: str) -> None:
    @pattern
    def plain(x):
        return ops.relu(ops.exp(x))

    @pattern
    def kept(x):
        return ops.relu(ops.exp(x).keep())

    def escaping(m: Any, x: Any) -> Any:
        y = x.exp()
        return F.relu(y), y

    assert "exp is also used by output, outside the match" in reason(at_end(plain, escaping, captured))
    assert at_end(kept, escaping, captured).match

    @pattern
    def through_view(x):
        return ops.relu(ops.transpose(x, 0, 1))

    def viewed(m: Any, x: Any) -> Any:
        y = x.transpose(0, 1)
        return F.relu(y), y

    assert at_end(through_view, viewed, captured).match  # a view is recomputable


def test_a_match_does_not_straddle_a_mutation() -> None:
    @pattern
    def chain(x):
        return ops.relu(ops.exp(x))

    def mutated(m: Any, x: Any) -> Any:
        z = x * 2
        y = z.exp()
        z.add_(1)
        return F.relu(y)

    assert "an in-place op lies between exp and relu" in reason(at_end(chain, mutated, "symbolic"))


@CAPTURES
def test_strict_attributes_must_be_the_default(captured: str) -> None:
    @pattern
    def added(x, y):
        return ops.add(x, y).named("add")

    @pattern
    def doubled(x, y):
        return ops.add(x, y, alpha=2)

    plain, alpha = (lambda m, x: torch.add(x, x.exp())), (lambda m, x: torch.add(x, x.exp(), alpha=2))
    assert at_end(added, plain, captured).match
    assert "alpha=2, and the pattern does not speak of it" in reason(at_end(added, alpha, captured))
    assert at_end(doubled, alpha, captured).match
    assert "alpha=1, the pattern wants 2" in reason(at_end(doubled, plain, captured))


@CAPTURES
def test_free_attributes_are_read_from_the_match(captured: str) -> None:
    @pattern
    def flat(x):
        return ops.flatten(x).named("flat")

    found = at_end(flat, lambda m, x: torch.flatten(x, 1), captured).match
    assert found is not None
    assert found.flat.attrs["start_dim"] == 1


@CAPTURES
def test_an_absent_input_binds_none_only_where_allowed(captured: str) -> None:
    @pattern
    def with_bias(x, w, b):
        return ops.linear(x, w, b)

    @pattern
    def any_bias(x, w, b=None):
        return ops.linear(x, w, b)

    def bare(m: Any, x: Any) -> Any:
        return F.linear(x, m.fc.weight)

    assert "there is no 'b' here" in reason(at_end(with_bias, bare, captured))
    found = at_end(any_bias, bare, captured).match
    assert found is not None
    assert found.b is None
    both = at_end(any_bias, lambda m, x: m.fc(x), captured).match
    assert both is not None
    assert both.b.fqn == "fc.bias"


@CAPTURES
def test_literals_and_constants(captured: str) -> None:
    @pattern
    def scaled(x):
        return ops.mul(x, const(0.7071, tol=1e-3))

    @pattern
    def exact(x):
        return ops.mul(x, 2)

    assert at_end(scaled, lambda m, x: x * 0.70710678, captured).match
    assert "expected 0.7071 (within 0.001), found 0.8" in reason(at_end(scaled, lambda m, x: x * 0.8, captured))
    assert at_end(exact, lambda m, x: 2 * x, captured).match


@CAPTURES
def test_predicates(captured: str) -> None:
    def small(value: Any) -> bool | Reject:
        return value < 3 or Reject(f"{value} is not small")

    @pattern
    def guarded(x, c):
        return ops.mul(x, c.where(lambda v: isinstance(v, int)).where(small))

    @pattern
    def on_op(x):
        return ops.relu(x).where(lambda reading: reading.attrs["inplace"])

    assert at_end(guarded, lambda m, x: x * 2, captured).match
    assert "5 is not small" in reason(at_end(guarded, lambda m, x: x * 5, captured))
    assert "is refused by <lambda>" in reason(at_end(on_op, lambda m, x: F.relu(x), captured))


@CAPTURES
@pytest.mark.parametrize(
    ("kind", "masked", "dropped"), list(itertools.product(["div", "mul", "none"], [False, True], [False, True]))
)
def test_one_pattern_for_twelve_attentions(captured: str, kind: str, masked: bool, dropped: bool) -> None:
    @pattern
    def attention(q, k, v, scale=None, mask=None):
        s = ops.matmul(q, any_of(t=ops.transpose(k, -2, -1), p=ops.permute(k, (0, 2, 1))))
        s = any_of(tag="scaling", div=ops.div(s, scale), mul=ops.mul(s, scale), none=s)
        s = any_of(tag="masked", yes=ops.add(s, mask), no=s)
        p = maybe(lambda y: ops.dropout(y, training=False), ops.softmax(s, dim=-1), tag="dropout")
        return ops.matmul(p, v)

    def function(m: Any, x: Any) -> Any:
        s = x @ (x.transpose(-2, -1) if masked else x.permute(0, 2, 1))
        s = s / 2.0 if kind == "div" else 2.0 * s if kind == "mul" else s
        s = m.fc.weight + s if masked else s
        p = torch.softmax(s, dim=-1)
        p = F.dropout(p, 0.1, training=False) if dropped else p
        return p @ x

    outcome = at_end(attention, function, captured)
    assert outcome.match is not None, str(outcome.miss)
    assert (outcome.match.scaling, outcome.match.masked) == (kind, "yes" if masked else "no")
    assert bool(outcome.match.dropout) is dropped
    assert outcome.steps < 60


@CAPTURES
def test_every_way_is_found(captured: str) -> None:
    @pattern
    def both(x, y):
        return ops.add(ops.exp(x).keep(), y)

    view = view_of(lambda m, x: x.exp() + (x * 2).exp(), captured)
    assert len(list(matches(both, view, last(view)))) == 2


@CAPTURES
def test_where_of_the_whole_match_tries_other_ways(captured: str) -> None:
    @pattern
    def both(x, y):
        return ops.add(ops.exp(x).keep(), y)

    outcome = at_end(both, lambda m, x: x.exp() + (x * 2).exp(), captured, where=lambda m: m.x.name == "mul")
    assert outcome.match is not None
    assert outcome.match.x.name == "mul"
    assert "refused" in reason(at_end(both, lambda m, x: x.exp() + x, captured, where=lambda m: False))


@CAPTURES
def test_the_best_partial_match_is_reported(captured: str) -> None:
    @pattern
    def long(x):
        return ops.relu(ops.exp(ops.neg(ops.tanh(x))))

    text = reason(at_end(long, lambda m, x: F.relu(torch.exp(torch.neg(torch.sigmoid(x)))), captured))
    assert text.startswith(
        "matched 3 of 4 nodes [relu, exp, neg], then: expected ops.tanh, found ops.sigmoid at sigmoid"
    )


def test_a_pathological_pattern_gives_up_with_a_reason() -> None:
    def tree(captures: list[Any]) -> Any:
        while len(captures) > 1:
            captures = [ops.add(a, b) for a, b in zip(captures[::2], captures[1::2], strict=True)]
        return captures[0]

    @pattern
    def forest(a, b, c, d, e, f, g, h):
        return ops.add(tree([c.where(lambda v: True) for c in (a, b, c, d, e, f, g, h)]), ops.tanh(a))

    def function(m: Any, x: Any) -> Any:
        return tree_of(x, 8) + torch.neg(x)

    def tree_of(x: Any, n: int) -> Any:
        leaves = [x * i for i in range(n)]
        while len(leaves) > 1:
            leaves = [a + b for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
        return leaves[0]

    outcome = at_end(forest, function, "symbolic", budget=200)
    assert outcome.match is None
    assert outcome.steps == 201


def test_a_pattern_5000_deep_needs_no_recursion() -> None:
    @pattern
    def deep(x):
        for _ in range(5_000):
            x = ops.neg(x)
        return x

    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    for _ in range(5_000):
        node = graph.call_function(torch.neg, (node,))
    graph.output(node)
    view = GraphView(torch.fx.GraphModule(nn.Module(), graph))
    outcome = match(deep, view, node)
    assert outcome.match is not None
    assert outcome.steps == 5_001
