"""The rank of every value that is known is the rank it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.capture import capture
from qfx.graph import GraphView


class Calls(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.w = nn.Parameter(torch.randn(4, 4))
        self.cell = nn.GRUCell(4, 4)
        self.stub, self.back = qfx.QuantStub(), qfx.DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


KNOWN = {
    "layers": lambda m, x: F.relu(m.fc(m.conv(x))),
    "stubs": lambda m, x: m.back(m.conv(m.stub(x))),
    "flatten": lambda m, x: x.flatten(1),
    "flatten some": lambda m, x: torch.flatten(x, -3, -2),
    "flatten all": lambda m, x: x.flatten(),
    "view": lambda m, x: x.view(x.size(0), -1),
    "reshape": lambda m, x: torch.reshape(x, (2, 2, -1)),
    "unsqueeze": lambda m, x: x.unsqueeze(0) + 1,
    "select": lambda m, x: x.select(0, 1),
    "mean": lambda m, x: x.mean([2, 3]),
    "mean kept": lambda m, x: x.mean(1, keepdim=True),
    "sum": lambda m, x: x.sum(1),
    "mean of all": lambda m, x: x.mean(),
    "broadcast": lambda m, x: x.mean([2, 3], keepdim=True) * m.w.sum() + 2 * x,
    "parameter": lambda m, x: m.w * 2,
    "chunk": lambda m, x: x.chunk(2, 1)[0],
    "cat": lambda m, x: torch.cat([x, x], 1),
    "transpose": lambda m, x: x.transpose(1, 2).permute(0, 2, 1, 3),
    "expand": lambda m, x: m.w.expand(3, 4, 4),
    "repeat": lambda m, x: m.w.repeat(2, 1, 1),
    "two": lambda m, x: m.w.select(0, 1) + x,
    "matmul": lambda m, x: x @ m.w,
    "matrix and vector": lambda m, x: m.w @ m.w[0],
    "vectors": lambda m, x: m.w[0] @ m.w[1],
    "vector and matrices": lambda m, x: m.w[0] @ x,
    "index": lambda m, x: x[0],
    "slices": lambda m, x: x[:, 1:, ..., 0],
    "new axis": lambda m, x: x[:, None, 0],
    "stack": lambda m, x: torch.stack([x, x]),
    "chunks joined": lambda m, x: torch.cat([each * 2 for each in (x.chunk(2, 1)[0], x.chunk(2, 1)[1])], 1),
    "cell": lambda m, x: m.cell(x[0, 0]),
    "gelu": lambda m, x: F.gelu(x).softmax(1),
}
UNKNOWN = {
    "squeeze": lambda m, x: x.mean([2, 3], keepdim=True).squeeze(),
    "unbind": lambda m, x: x.unbind(0)[0],
    "mask": lambda m, x: x[x > 0],
    "list": lambda m, x: x[[0, 1]],
    "computed index": lambda m, x: x[x.size(0) - 1],
    "some chunks": lambda m, x: torch.cat(x.chunk(2, 1)[:1]),
    "stranger": lambda m, x: torch.cumsum(x, 1),
}


def outcome(name: str, function: Callable[..., torch.Tensor]) -> tuple[int | None, int]:
    model, x = Calls(function).eval(), torch.randn(2, 4, 4, 4)
    gm = capture(model, examples=(x,))
    (result,) = gm.graph.output_node().args
    return GraphView(gm).rank(result), model(x).dim()


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_rank_is_right(name: str) -> None:
    found, expected = outcome(name, KNOWN[name])
    assert found == expected


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nothing_tells_is_not_guessed(name: str) -> None:
    found, _ = outcome(name, UNKNOWN[name])
    assert found is None


def test_without_examples_the_graph_alone_tells() -> None:
    gm = capture(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)).eval())
    view = GraphView(gm)
    assert [view.rank(node) for node in gm.graph.nodes if node.op != "output"] == [None, None, 2, 2]


def test_an_exported_graph_knows_all_ranks() -> None:
    x = torch.randn(2, 4, 4, 4)
    gm = torch.export.export(Calls(UNKNOWN["squeeze"]).eval(), (x,)).module()
    calls = [node for node in gm.graph.nodes if node.op == "call_function" and "squeeze" in node.name]
    assert [GraphView(gm).rank(node) for node in calls] == [2]


def test_long_chains_need_no_recursion() -> None:
    gm = capture(nn.Sequential(*[nn.ReLU() for _ in range(3000)]).eval(), examples=(torch.randn(2, 3, 4),))
    (result,) = gm.graph.output_node().args
    assert GraphView(gm).rank(result) == 3
