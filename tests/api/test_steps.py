"""What matching costs: steps per node of the real rule sets, deterministic, and the same however long the graph is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.passes import pipeline
from qfx.passes.annotate import instances


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.a(self.relu(self.b(x))))


def chain(blocks: int) -> nn.Module:
    """``x = relu(x + linear(relu(linear(x))))`` again and again: five nodes a block, as in the benchmark."""
    return nn.Sequential(*(Block() for _ in range(blocks))).eval()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A block of code, and how many searches and steps the matcher took in it."""

    @contextmanager
    def block() -> Iterator[dict[str, int]]:
        taken = {"searches": 0, "steps": 0}
        with monkeypatch.context() as patch:
            for module in (pipeline, instances):  # the two that search

                def counted(*args: Any, search: Any = module.match, **kwargs: Any) -> Any:
                    outcome = search(*args, **kwargs)
                    taken["searches"] += 1
                    taken["steps"] += outcome.steps
                    return outcome

                patch.setattr(module, "match", counted)
            yield taken

    return block


def steps(counting: Callable[[], Any], blocks: int, target: str) -> dict[str, int]:
    """Matcher steps of `prepare_fx` and of `convert_fx` on a chain."""
    x = torch.randn(2, 4)
    with counting() as preparing:
        prepared = qfx.prepare_fx(chain(blocks), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    with counting() as converting:
        int8 = qfx.convert_fx(prepared, target=target)
    assert qfx.summary(int8).coverage_nodes == 1.0
    return {"prepare": preparing["steps"], "convert": converting["steps"]}


@pytest.mark.parametrize(("target", "most"), [("native", 8), ("onednn", 18)])
def test_steps_per_node_of_prepare_and_convert(counting: Callable[[], Any], target: str, most: float) -> None:
    """A node is quantize, dequantize and its op by the time `convert_fx` searches; additions are tried twice."""
    few, many = (steps(counting, blocks, target) for blocks in (20, 80))
    assert many == {stage: 4 * taken for stage, taken in few.items()}  # flat
    nodes = 5 * 20
    assert 1 <= few["prepare"] / nodes <= 2.5
    assert 1 <= few["convert"] / nodes <= most


def test_patterns_that_cannot_match_are_not_searched(counting: Callable[[], Any]) -> None:
    """The backend has more than a hundred patterns; those filed under other ops cost nothing."""
    with counting() as taken:
        qfx.prepare_fx(chain(20), qfx.get_default_qconfig_mapping("x86"), (torch.randn(2, 4),))
    assert len(qfx.get_default_backend_config().configs) > 100
    assert 0 < taken["searches"] <= 2 * 5 * 20
