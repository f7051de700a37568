"""What a node is read as."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from qfx.graph import GraphView, Param


def test_a_reading_gives_inputs_by_name_and_knows_its_dialect() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.relu.default(torch.relu(self.fc(x).relu()))

    gm = fx.symbolic_trace(Net())
    view = GraphView(gm)
    readings = [view.read(node) for node in gm.graph.nodes if node.op.startswith("call")]
    assert [reading.dialect for reading in readings] == ["module", "method", "function", "aten"]
    assert repr(readings[0]) == "linear@fc"
    assert repr(readings[0].input("w")) == "Param(fc.weight)"
    with pytest.raises(ValueError, match="linear has no input '"):
        readings[0].input("nothing")


def test_a_parameter_is_itself_only() -> None:
    tensor = torch.ones(1)
    assert Param("a", tensor) != Param("a", tensor)
