"""Calls that are others in disguise are spelled out where they are to be quantized, and only there."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import qfx


class Calls(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(x, y)


def targets(function: Any, mapping: Any = None, shape: tuple[int, ...] = (2, 3)) -> list[Any]:
    x = torch.randn(shape)
    mapping = mapping or qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx(Calls(function).eval(), mapping, (x, x))
    return [node.target for node in prepared.graph.nodes if node.op in ("call_function", "call_method")]


def test_alpha_is_a_product_before_the_sum() -> None:
    assert targets(lambda x, y: torch.add(x, y, alpha=2)) == [operator.mul, torch.add]


def test_alpha_of_a_number_is_worked_out() -> None:
    x = torch.randn(2, 3)
    prepared = qfx.prepare_fx(
        Calls(lambda x, y: torch.add(x, 3, alpha=2)).eval(), qfx.get_default_qconfig_mapping("x86"), (x, x)
    )
    (added,) = [node for node in prepared.graph.nodes if node.target is torch.add]
    assert added.args[1] == 6
    assert torch.equal(prepared(x, x), x + 6)


def test_what_stays_float_keeps_its_spelling() -> None:
    left = qfx.QConfigMapping().set_global(qfx.default_qconfig).set_object_type(torch.add, None)
    assert targets(lambda x, y: torch.add(x, y, alpha=2), left) == [torch.add]
    assert targets(lambda x, y: torch.sub(x, y, alpha=2)) == [torch.sub]


def test_an_alpha_that_is_computed_stays() -> None:
    assert torch.mul not in targets(lambda x, y: torch.add(x, y, alpha=x.size(0)))


@pytest.mark.parametrize(
    ("function", "shape", "dim"),
    [
        (torch.hstack, (3,), 0),
        (torch.hstack, (2, 3), 1),
        (torch.vstack, (2, 3), 0),
        (torch.dstack, (2, 3, 4), 2),
        (torch.column_stack, (2, 3), 1),
    ],
)
def test_stacks_are_concatenations(function: Any, shape: tuple[int, ...], dim: int) -> None:
    x, y = torch.randn(shape), torch.randn(shape)
    prepared = qfx.prepare_fx(
        Calls(lambda x, y: function([x, y])).eval(), qfx.get_default_qconfig_mapping("x86"), (x, y)
    )
    (joined,) = [node for node in prepared.graph.nodes if node.target is torch.cat]
    assert joined.kwargs["dim"] == dim
    assert torch.equal(prepared(x, y), function([x, y]))


@pytest.mark.parametrize(
    ("function", "shape"),
    [(torch.vstack, (3,)), (torch.dstack, (2, 3)), (torch.column_stack, (3,))],
)
def test_stacks_that_add_dimensions_stay(function: Any, shape: tuple[int, ...]) -> None:
    assert targets(lambda x, y: function([x, y]), shape=shape) == [function]


def test_a_stack_of_unknown_ranks_stays() -> None:
    assert targets(lambda x, y: torch.hstack([x.squeeze(), y.squeeze()]))[-1] is torch.hstack
