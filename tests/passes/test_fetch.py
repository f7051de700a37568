"""Scales and zero points get nodes when the graph is done: none is in the way of lowering, none is missing after it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx import ops
from qfx.graph import Param
from qfx.passes.pipeline import FunctionPass


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.conv(x) + x, 1)


def prepared() -> Any:
    x = torch.rand(2, 3, 4, 4)
    found = qfx.prepare_fx(Sum().eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    found(x)
    return found


def constants_among_arguments(gm: torch.fx.GraphModule) -> list[Any]:
    return [each for node in gm.graph.nodes for each in node.args if isinstance(each, Param)]


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
def test_what_is_converted_fetches_all_it_reads(target: str) -> None:
    made = qfx.convert_fx(prepared(), target=target)
    assert not constants_among_arguments(made)
    made.graph.lint()
    fetched = [str(node.target) for node in made.graph.nodes if node.op == "get_attr"]
    assert {name for name, _ in made.named_buffers() if "." not in name} <= set(fetched)
    assert made(torch.rand(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_a_reference_graph_has_a_node_for_each_constant_before_its_quantize() -> None:
    made = qfx.convert_to_reference_fx(prepared())
    quantizes = [node for node in made.graph.nodes if node.target is torch.quantize_per_tensor]
    assert len(quantizes) == 3
    for node in quantizes:
        assert [each.op for each in node.args[1:3]] == ["get_attr", "get_attr"]


@pytest.mark.parametrize("stage", ["convert", "lower"])
def test_a_pass_of_the_user_sees_nodes(stage: str) -> None:
    seen: list[Any] = []

    def look(gm: torch.fx.GraphModule, context: Any) -> bool:
        seen.append((constants_among_arguments(gm), sum(1 for _ in context.view.find(ops.quantize))))
        return False

    qfx.convert_fx(prepared(), passes={stage: [FunctionPass("look", look)]})
    assert seen == [([], 3 if stage == "convert" else 1)]


def test_a_constant_two_nodes_read_is_fetched_once_before_the_first() -> None:
    made = qfx.convert_fx(prepared(), target="onednn")
    fetched = [str(node.target) for node in made.graph.nodes if node.op == "get_attr"]
    assert len(fetched) == len(set(fetched))
