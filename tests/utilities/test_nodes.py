from __future__ import annotations

import torch
from torch import Tensor, fx, nn

import qfx


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.relu(x), torch.sin(x)])
        return self.linear(x).view(-1).exp()


def test_calls_on_floats_and_codes_alike() -> None:
    gm = fx.symbolic_trace(Net())
    found = {node.name: qfx.check_node(node, dict(gm.named_modules())) for node in gm.graph.nodes}
    nothing = (False, False, False)
    assert found == {
        "x": nothing,
        "relu": (False, False, True),
        "sin": nothing,
        "cat": (True, False, False),
        "linear": nothing,
        "view": (False, True, False),
        "exp": nothing,
        "output": nothing,
    }
