"""The view reads both captures alike, one object a tensor, and keeps up with what is edited."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from qfx import ops
from qfx.graph import GraphView, Param


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(4, 4)
        self.act = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x)).mean([2, 3])
        return F.linear(torch.relu(self.fc(x)), self.fc.weight)


X = torch.randn(2, 3, 8, 8)


def captured(name: str) -> Any:
    if name == "fx":
        return fx.symbolic_trace(Net())
    return torch.export.export(Net().eval(), (X,)).module()


COMPUTING = ["conv2d", "sigmoid", "mean", "linear", "relu", "linear"]


@pytest.fixture(params=["fx", "export"])
def gm(request: pytest.FixtureRequest) -> Any:
    return captured(str(request.param))


def readings(gm: Any) -> tuple[GraphView, dict[str, Any]]:
    view = GraphView(gm)
    found: dict[str, Any] = {}
    for node in gm.graph.nodes:
        reading = view.read(node)
        found.setdefault(reading.op.name, reading)
    return view, found


def test_both_captures_are_read_as_the_same_ops(gm: Any) -> None:
    view = GraphView(gm)
    names = [view.read(node).op.name for node in gm.graph.nodes]
    assert [name for name in names if name in COMPUTING] == COMPUTING
    _, found = readings(gm)
    assert found["conv2d"].attrs["stride"] == (2, 2)
    assert found["conv2d"].attrs["padding"] == (1, 1)
    assert found["mean"].attrs["dim"] == (2, 3)
    assert found["conv2d"].input("b").tensor.shape == (4,)


def test_a_tied_weight_is_one_parameter_with_two_readers(gm: Any) -> None:
    view = GraphView(gm)
    linears = [view.read(node) for node in gm.graph.nodes if view.read(node).op is ops.linear]
    first, second = (reading.input("w") for reading in linears)
    assert isinstance(first, Param)
    assert first is second
    assert linears[1].input("b") is None
    assert {(node.name, name) for node, name in view.readers(first)} == {(r.node.name, "w") for r in linears}


def test_a_node_is_read_once() -> None:
    gm = captured("fx")
    view = GraphView(gm)
    node = gm.graph.find_nodes(op="call_module", target="conv")[0]
    assert view.read(node) is view.read(node)
    view.forget(node)
    assert view.read(node).op is ops.conv2d


def test_an_erased_node_reads_nothing_any_more() -> None:
    gm = captured("fx")
    view = GraphView(gm)
    last = next(n for n in reversed(gm.graph.nodes) if n.op == "call_function" and n.target is F.linear)
    weight = view.read(last).input("w")
    assert len(view.readers(weight)) == 2
    assert view.callers("fc") == 1
    view.forget(last, erased=True)
    assert [node.name for node, _ in view.readers(weight)] == ["fc"]
    fc = gm.graph.find_nodes(op="call_module", target="fc")[0]
    view.forget(fc, erased=True)
    assert view.callers("fc") == 0


def test_a_module_under_two_names_has_all_its_callers() -> None:
    shared = nn.Linear(4, 4)
    gm = fx.symbolic_trace(nn.Sequential(shared, nn.ReLU(), shared))
    assert GraphView(gm).callers("0") == 2


def test_a_mutation_parts_the_graph() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x)
        x.add_(1)
        return y + torch.sigmoid(x)

    gm = fx.symbolic_trace(function)
    view = GraphView(gm)
    region = {node.name: view.region(node) for node in gm.graph.nodes}
    assert region["tanh"] == region["add_"] < region["sigmoid"] == region["add"]


def test_an_unknown_call_is_an_op_of_its_own() -> None:
    gm = fx.symbolic_trace(lambda x: torch.fft.fft(x))
    view = GraphView(gm)
    (node,) = (n for n in gm.graph.nodes if n.op == "call_function")
    assert view.read(node).op.opaque
    assert view.read(node).spelling is None
    # a call that no signature takes is not guessed at
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.relu, (x, 1, 2)))
    view = GraphView(fx.GraphModule(nn.Module(), graph))
    assert view.read(graph.output_node().args[0]).op.opaque  # type: ignore[arg-type]


def test_output_zero_of_an_op_with_several_is_the_op() -> None:
    def pool(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.max_pool2d_with_indices.default(x, [2, 2])[0]

    view = GraphView(fx.symbolic_trace(pool))
    output = view.gm.graph.output_node()
    assert view.read(output.args[0]).op is ops.max_pool2d  # type: ignore[arg-type]
