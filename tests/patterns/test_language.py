"""Mistakes in a pattern surface where it is defined, with file and line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qfx import ops
from qfx.errors import PatternError
from qfx.graph import GraphView
from qfx.patterns import Anything, Index, any_of, match, maybe, pattern
from qfx.patterns.language import from_term


def unused(x, y):
    return ops.relu(x)


def one_branch(x, y):
    return any_of(a=ops.add(x, y), b=ops.relu(x))


def unknown_attribute(x):
    return ops.relu(x, strides=2)


def surplus(x):
    return ops.neg(x, 1)


def two_outputs(x):
    return ops.neg(x), ops.relu(x)


def missing(x):
    return ops.linear(x)


def twice(x):
    return ops.relu(x, x=x)


def with_default(x, y=3):
    return ops.add(x, y)


def star(*xs):
    return ops.cat(xs)


def raises(x):
    return ops.relu(x).undefined


def named_capture(x):
    return ops.relu(x).named("x")


def one_alternative(x):
    return any_of(a=ops.relu(x))


def name_on_capture(x):
    return ops.relu(x.named("y"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (unused, "pattern unused never uses y"),
        (one_branch, "binds 'y' in one branch only"),
        (unknown_attribute, "has no input or attribute 'strides'; it has x, inplace"),
        (surplus, "ops.neg takes 1 arguments"),
        (two_outputs, "a tuple of outputs is not a pattern"),
        (missing, "ops.linear needs w"),
        (twice, "is given 'x' twice"),
        (with_default, "the only default a capture can have is None"),
        (star, "cannot be captures"),
        (raises, "the body of pattern raises raised AttributeError"),
        (named_capture, "'x' is both a capture"),
        (one_alternative, "any_of needs two branches"),
        (name_on_capture, "on something that is not an op call"),
    ],
)
def test_mistakes_are_found_at_import_with_their_line(body: Any, message: str) -> None:
    with pytest.raises(PatternError, match=r"test_language\.py:\d+: ") as caught:
        pattern(body)
    assert message in str(caught.value)


def test_an_op_outside_a_pattern_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="Ops build patterns"):
        ops.relu(torch.ones(1))


def test_a_pattern_knows_its_names_and_roots() -> None:
    @pattern
    def p(x, w, b=None):
        return maybe(ops.relu, ops.linear(x, w, b).named("fc"), tag="relu")

    assert p.names == {"x", "w", "b", "fc", "relu"}
    assert p.roots == {ops.relu, ops.linear}
    assert p.size == 2


def chain(*targets: Any) -> GraphView:
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    for target in targets:
        node = graph.call_function(target, (node,))
    graph.output(node)
    return GraphView(torch.fx.GraphModule(nn.Module(), graph))


def test_the_index_rejects_on_producers_before_any_matching() -> None:
    @pattern
    def relu_of_exp(x):
        return ops.relu(ops.exp(x))

    @pattern
    def only_relu(x):
        return ops.relu(x)

    view = chain(torch.neg, torch.relu, torch.exp, torch.relu)
    index: Index[str] = Index([(only_relu, 0, "short"), (relu_of_exp, 0, "long")])
    found = {n.name: [name for _, name in index.candidates(view, n)] for n in view.gm.graph.nodes}
    assert found["relu"] == ["short"]
    assert found["relu_1"] == ["long", "short"]
    assert found["neg"] == []


def test_a_wildcard_anchor_is_tried_everywhere() -> None:
    anything = from_term("anything", Anything(), "here", [])
    view = chain(torch.neg, torch.relu)
    index: Index[str] = Index([(anything, 5, "any")])
    assert [n.name for n in view.gm.graph.nodes if any(True for _ in index.candidates(view, n))] == ["neg", "relu"]
    assert all(match(anything, view, n).match for n in view.gm.graph.nodes)


@pytest.mark.parametrize("nodes", [2_000, 20_000])
def test_200_patterns_cost_about_one_step_a_node(nodes: int) -> None:
    unary = [ops.REGISTRY[name] for name in ("neg", "exp", "relu", "tanh", "sigmoid", "sqrt")]
    functions = [torch.neg, torch.exp, torch.relu, torch.tanh, torch.sigmoid, torch.sqrt]

    def nested(i: int) -> Any:
        @pattern
        def p(x):
            return unary[i % 6](unary[i // 6 % 6](unary[i // 36 % 6](unary[(i * 5 + 1) % 6](ops.abs(x)))))

        return p

    index: Index[int] = Index((nested(i), 0, i) for i in range(200))
    # Few neighbours fit a pattern's first two ops, as in a real network.
    view = chain(*(functions[(i * i + i // 7) % 6] for i in range(nodes)))
    steps = 0
    for node in view.gm.graph.nodes:
        for p, _ in index.candidates(view, node):
            steps += match(p, view, node).steps
    # 200 patterns tried one by one would cost 200 steps and more; here most nodes fit none and cost none.
    assert steps / nodes < 5


@pytest.mark.parametrize("name", ["anchor", "nodes", "once"])
def test_a_capture_cannot_be_called_what_a_match_has_for_itself(name: str) -> None:
    scope: dict[str, Any] = {"ops": ops}
    exec(f"def hides({name}):\n    return ops.relu({name})", scope)
    with pytest.raises(PatternError, match=f"pattern hides binds '{name}', which every match has for itself"):
        pattern(scope["hides"])
