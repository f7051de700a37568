"""The index tries a pattern only where the ops along first inputs can be its own."""

from __future__ import annotations

import torch
from torch import fx

from qfx import ops
from qfx.graph import GraphView
from qfx.patterns import Index, Pattern, any_of, maybe, pattern


@pattern
def conv_relu(x, w, b=None):  # type: ignore[no-untyped-def]
    return ops.relu(ops.conv2d(x, w, b))


@pattern
def linear_relu(x, w, b=None):  # type: ignore[no-untyped-def]
    return ops.relu(ops.linear(x, w, b))


@pattern
def relu_alone(x):  # type: ignore[no-untyped-def]
    return ops.relu(x)


@pattern
def add_relu(x, w, y):  # type: ignore[no-untyped-def]
    return ops.relu(ops.add(ops.linear(x, w, None), y))


@pattern
def maybe_relu(x, w, b=None):  # type: ignore[no-untyped-def]
    return maybe(ops.relu, ops.linear(x, w, b))


@pattern
def deep(x, w):  # type: ignore[no-untyped-def]
    y = ops.linear(x, w, None)
    for _ in range(9):  # 2 ** 9 ways up, more than anybody would file one by one
        y = any_of(relu=ops.relu(y), tanh=ops.tanh(y))
    return y


@pattern
def anything(x):  # type: ignore[no-untyped-def]
    return any_of(relu=ops.relu(x), itself=x)


def names(patterns: list[Pattern], function: object) -> list[str]:
    """Patterns tried at the node the function returns."""
    gm = fx.symbolic_trace(function)
    view = GraphView(gm)
    node = gm.graph.output_node().args[0]
    return [found.name for found, _ in Index((p, 0, None) for p in patterns).candidates(view, node)]


def test_only_patterns_with_these_ops_are_tried_longest_first() -> None:
    known = [relu_alone, linear_relu, conv_relu]
    assert names(known, lambda x, w: torch.relu(torch.nn.functional.linear(x, w))) == ["linear_relu", "relu_alone"]
    assert names(known, lambda x, w: torch.relu(torch.conv2d(x, w))) == ["conv_relu", "relu_alone"]
    assert names(known, lambda x, w: torch.relu(x @ w)) == ["relu_alone"]
    assert names(known, lambda x, w: torch.tanh(x)) == []


def test_either_input_of_a_commutative_op_may_come_first() -> None:
    def swapped(x, w, y):  # type: ignore[no-untyped-def]
        return torch.relu(y + torch.nn.functional.linear(x, w))

    assert names([add_relu], swapped) == ["add_relu"]


def test_an_alternative_is_filed_under_each_of_its_forms_and_tried_once() -> None:
    linear = torch.nn.functional.linear
    assert names([maybe_relu], lambda x, w: linear(x, w)) == ["maybe_relu"]
    assert names([maybe_relu], lambda x, w: torch.relu(linear(x, w))) == ["maybe_relu"]
    assert names([maybe_relu], lambda x, w: torch.relu(x)) == []


def test_too_many_forms_are_filed_under_what_they_share() -> None:
    assert names([deep], lambda x: torch.relu(torch.tanh(torch.relu(x)))) == ["deep"]
    assert names([deep], lambda x: torch.sigmoid(x)) == []


def test_a_beginning_that_fits_still_gets_a_try_so_its_miss_can_tell_why() -> None:
    @pattern
    def three(x, w):  # type: ignore[no-untyped-def]
        return ops.relu(ops.tanh(ops.linear(x, w, None)))

    assert names([three], lambda x: torch.relu(torch.tanh(x))) == ["three"]
    assert names([three], lambda x: torch.relu(x)) == []


def test_a_pattern_of_anything_is_tried_everywhere() -> None:
    assert names([anything, linear_relu], lambda x: torch.tanh(x)) == ["anything"]
    assert names([anything, linear_relu], lambda x, w: torch.relu(torch.nn.functional.linear(x, w))) == [
        "linear_relu",
        "anything",
    ]
