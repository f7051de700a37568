"""The original's tracer: which modules are leaves, and what it tells of every node."""

from __future__ import annotations

import torch
from torch import nn

import qfx
from qfx.nn import intrinsic


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fused = Inner(), intrinsic.LinearReLU(nn.Linear(2, 2), nn.ReLU())
        self.body = nn.Sequential(qfx.nn.quantized.FloatFunctional())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fused(self.inner(x))  # type: ignore[no-any-return]


def test_layers_are_leaves_and_nodes_know_their_scope() -> None:
    tracer = qfx.QuantizationTracer([], [])
    graph = tracer.trace(Outer())
    assert [str(node.target) for node in graph.nodes if node.op == "call_module"] == ["inner.fc", "fused"]
    assert tracer.node_name_to_scope["inner_fc"] == ("inner.fc", nn.Linear)
    assert tracer.node_name_to_scope["relu"] == ("inner", Inner)
    assert all(node.stack_trace for node in graph.nodes if node.op.startswith("call"))


def test_skipped_modules_stay_whole() -> None:
    for tracer in (qfx.QuantizationTracer(["inner"], []), qfx.QuantizationTracer([], [Inner])):
        graph = tracer.trace(Outer())
        assert [str(node.target) for node in graph.nodes if node.op == "call_module"] == ["inner", "fused"]


def test_a_graph_it_traced_can_be_prepared() -> None:
    model, x = Outer().eval(), torch.randn(3, 2)
    traced = torch.fx.GraphModule(model, qfx.QuantizationTracer([], []).trace(model))
    prepared = qfx.prepare_fx(traced, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    assert (qfx.convert_fx(prepared)(x) - model(x)).abs().max() < 0.1


def test_stubs_and_wrappers_of_eager_mode_are_traced_through() -> None:
    model = nn.Sequential(qfx.QuantStub(), qfx.QuantWrapper(nn.Linear(2, 2)), qfx.DeQuantStub()).eval()
    graph = qfx.QuantizationTracer([], []).trace(model)
    assert [n.target for n in graph.nodes if n.op.startswith("call")] == ["1.module"]
    whole = qfx.QuantizationTracer(["1"], [qfx.QuantStub]).trace(model)
    assert [n.target for n in whole.nodes if n.op.startswith("call")] == ["0", "1"]
    x = torch.randn(3, 2)
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    assert qfx.summary(qfx.convert_fx(prepared, strict=True)).coverage_nodes == 1.0
