"""What matching and rewriting cost: steps per node, and time per node as graphs grow."""

from __future__ import annotations

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


def rows() -> list[Row]:
    cost(1_000)
    small = min(cost(1_000)[0] for _ in range(5))
    large, steps = cost(20_000)
    huge, _ = cost(100_000)
    return [
        Row("matcher steps per node", steps, 2, "max", "steps"),
        Row("rewrite time per node, 20,000 nodes against 1,000", large / small, 1.5, "max"),
        Row("rewrite time per node, 100,000 nodes", huge, 1_000, "max", "us", f"({small:.0f} us at 1,000)"),
    ]
