"""Every node knows the user's nodes it came from, and where those were written."""

from __future__ import annotations

import torch
from torch import nn

from qfx.capture import capture
from qfx.graph.provenance import describe, line_of, merged, module_path, origins, stamp


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))


def test_a_traced_node_knows_name_spelling_module_and_line() -> None:
    gm = capture(Net().eval())
    (relu,) = gm.graph.find_nodes(op="call_function", target=torch.relu)
    (origin,) = origins(relu)
    assert (origin.name, origin.target) == ("relu", "torch.relu") or origin.target.endswith(".relu")
    assert origin.line.rpartition(":")[0] == __file__
    assert str(origin).startswith("relu (")
    assert describe(relu).startswith(f"relu ({__file__}:")
    (linear,) = gm.graph.find_nodes(op="call_module")
    assert module_path(linear) == origins(linear)[0].module_path == "inner.0"


def test_an_exported_node_knows_its_line_too() -> None:
    gm = torch.export.export(Net().eval(), (torch.randn(2, 4),)).module()
    stamp(gm)
    relu = next(n for n in gm.graph.nodes if "relu" in n.name)
    assert line_of(relu).rpartition(":")[0] == __file__
    linear = next(n for n in gm.graph.nodes if n.name.startswith("linear"))
    assert module_path(linear) == "inner.0"


def test_a_stamp_is_not_put_twice_and_merging_keeps_each_once() -> None:
    gm = capture(Net().eval())
    nodes = [n for n in gm.graph.nodes if n.op.startswith("call")]
    before = [origins(node) for node in nodes]
    stamp(gm)
    assert [origins(node) for node in nodes] == before
    assert merged([*nodes, *nodes]) == (*before[0], *before[1])


def test_a_node_nobody_stamped_is_described_by_its_name() -> None:
    graph = torch.fx.Graph()
    assert describe(graph.placeholder("x")) == "x"
    assert line_of(graph.placeholder("y")) == ""
