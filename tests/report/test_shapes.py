"""Shapes follow from what observers saw, through torch's own functions and nobody else's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qfx.graph import GraphView
from qfx.report.shapes import Shapes, runs

CALLS: list[Any] = []


def mine(x: torch.Tensor) -> torch.Tensor:
    CALLS.append(x)
    return x


torch.fx.wrap("mine")


def shapes_of(model: Any, **seen: tuple[int, ...]) -> dict[str, tuple[int, ...] | None]:
    """What is known of every node, given the shapes of some."""
    gm = torch.fx.symbolic_trace(model)
    known = Shapes(GraphView(gm), lambda node: seen.get(node.name))
    return {node.name: known.of(node) for node in gm.graph.nodes}


def test_forward_through_layers_moves_and_numbers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.fc = nn.Conv2d(3, 8, 3, stride=2), nn.MaxPool2d(2), nn.Linear(8, 5)
            self.padded = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.padded(self.pool(self.conv(x)))
            b, c, h, w = x.shape
            return self.fc(x.view(b, c, h * w).transpose(1, 2))

    found = shapes_of(Net(), x=(2, 3, 17, 33))
    assert (found["conv"], found["pool"], found["padded"]) == ((2, 8, 8, 16), (2, 8, 4, 8), (2, 8, 4, 8))
    assert (found["view"], found["transpose"], found["fc"]) == ((2, 8, 32), (2, 32, 8), (2, 32, 5))
    assert found["mul"] is None  # a number


def test_backward_through_what_keeps_shapes() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return F.softmax(F.layer_norm(F.relu(x * 2), (4,)), -1).mean()

    found = shapes_of(f, softmax=(3, 4))
    assert (found["layer_norm"], found["relu"], found["mul"]) == ((3, 4),) * 3
    assert found["x"] is None  # what a product is of may have been broadcast
    assert found["mean"] == ()


def test_what_was_seen_is_not_worked_out_again() -> None:
    assert shapes_of(lambda x: F.relu(x) + 1, x=(2, 2), relu=(5, 5))["add"] == (5, 5)


def test_nobody_elses_code_is_run() -> None:
    CALLS.clear()
    found = shapes_of(lambda x: mine(x) + 1, x=(2, 2))
    assert (found["mine"], found["add"], CALLS) == (None, None, [])


def test_a_call_that_is_refused_leaves_the_shape_open() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = torch.matmul(x, x)  # of (2, 3), which does not suit
        torch._assert(x.shape[0] == 7, "seven")
        return y + x.masked_select(x > 0)  # as long as its data say

    found = shapes_of(f, x=(2, 3))
    assert (found["matmul"], found["masked_select"], found["add"]) == (None, None, None)
    assert found["gt"] == (2, 3)


def test_a_shape_written_in_place_is_not_written_into_what_was_seen() -> None:
    found = shapes_of(lambda x: x.unsqueeze_(0) + 1, x=(2, 3))
    assert (found["x"], found["unsqueeze_"], found["add"]) == ((2, 3), (1, 2, 3), (1, 2, 3))


def test_whose_code_a_call_runs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return mine(torch.ops.aten.relu.default(self.fc(x.abs())) + torch.einsum("ij->j", x))

    gm = torch.fx.symbolic_trace(Net())
    found = {node.name: runs(GraphView(gm), node) for node in gm.graph.nodes if node.op.startswith("call")}
    assert list(found.values()) == ["torch", "torch", "aten", "torch", "python", found["mine"]]
    assert found["mine"] not in ("torch", "python", "qfx", "aten")
