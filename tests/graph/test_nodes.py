"""Names of nodes after rewrites."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.graph.nodes import plain_names

X = torch.randn(2, 3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.fc, self.again = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> Any:
        y = self.relu(self.bn(self.conv(x))).mean([2, 3])
        return self.again(self.fc(self.fc(y)))


def modules(gm: torch.fx.GraphModule) -> list[str]:
    return [node.name for node in gm.graph.nodes if node.op == "call_module" and "post_process" not in str(node.target)]


@pytest.mark.parametrize("training", [False, True])
def test_fused_and_lowered_layers_are_called_as_they_were(training: bool) -> None:
    model = Net().train(training)
    fused = qfx.fuse_fx(model) if not training else None
    assert fused is None or modules(fused) == ["conv", "fc", "fc_1", "again"]
    mapping = qfx.get_default_qat_qconfig_mapping("x86") if training else qfx.get_default_qconfig_mapping("x86")
    prepare: Any = qfx.prepare_qat_fx if training else qfx.prepare_fx
    prepared = prepare(model, mapping, (X,))
    assert modules(prepared) == ["conv", "fc", "fc_1", "again"]
    prepared(X)
    int8 = qfx.convert_fx(prepared.eval(), strict=True)
    assert modules(int8)[:2] == ["conv", "fc"]  # the second call has a scale of its own, and so a module
    assert set(modules(int8)) - {"again"} <= set(int8.plan["kernels"])
    assert qfx.summary(int8).coverage_nodes == 1.0
    plain_names(int8.graph)
    int8.recompile()
    assert modules(int8)[:2] == ["conv", "fc"]
    assert int8(X).shape == (2, 4)


def test_a_name_somebody_has_is_not_taken() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("conv")
    call = graph.call_module("conv", (x,))
    graph.output(call)
    plain_names(graph)
    assert [node.name for node in graph.nodes] == ["conv", "conv_1", "output"]
