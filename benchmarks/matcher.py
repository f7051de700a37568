"""What matching and rewriting cost: steps per node, and time per node as graphs grow."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import qfx
from benchmarks.harness import Row
from qfx import ops
from qfx.passes import Context, Pass


def chain(nodes: int) -> torch.fx.GraphModule:
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    for _ in range(nodes // 2):
        node = graph.call_function(F.relu, (graph.call_function(torch.neg, (node,)),))
    graph.output(node)
    return torch.fx.GraphModule(nn.Module(), graph)


@qfx.pattern
def relu_of_neg(x: Any) -> Any:
    return ops.relu(ops.neg(x))


@qfx.rule(relu_of_neg)
def to_abs(m: Any, g: qfx.Rewriter) -> Any:
    return g.call(ops.abs, m.x)


def cost(nodes: int) -> tuple[float, float]:
    """(microseconds, matcher steps) per node of rewriting every pair of a chain."""
    gm = chain(nodes)
    start = time.perf_counter()
    log = Pass("bench", (to_abs,)).run(gm, Context.of(gm))
    seconds = time.perf_counter() - start
    assert log.rules["to_abs"].applied == nodes // 2
    return seconds / nodes * 1e6, log.steps / nodes


def growth(small: int, large: int, rounds: int = 7) -> tuple[float, float]:
    """Microseconds per node of a short and of a long chain: medians of rounds that run both, one after the other."""
    cost(small)
    measured = [(cost(small)[0], cost(large)[0]) for _ in range(rounds)]
    few, many = map(statistics.median, zip(*measured, strict=True))
    return few, many


def rows() -> list[Row]:
    small, large = growth(1_000, 20_000)
    steps = cost(20_000)[1]
    huge, _ = cost(100_000)
    return [
        Row("matcher steps per node", steps, 2, "max", "steps"),
        Row("rewrite time per node, 20,000 nodes against 1,000", large / small, 1.5, "max"),
        Row("rewrite time per node, 100,000 nodes", huge, 1_000, "max", "us", f"({small:.0f} us at 1,000)"),
    ]
