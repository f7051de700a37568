"""Graphs that cannot run are told in words."""

from __future__ import annotations

import torch
from torch import nn

from qfx.graph.check import fault


def _traced() -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_a_sound_graph_has_no_fault() -> None:
    assert fault(_traced()) is None


def test_a_node_before_what_it_takes_is_a_fault() -> None:
    gm = _traced()
    _, linear, relu, _ = gm.graph.nodes
    relu.append(linear)
    assert fault(gm) == "_1 takes _0, which does not stand before it"


def test_a_call_of_a_missing_module_is_a_fault() -> None:
    gm = _traced()
    del gm._modules["0"]
    assert fault(gm) == "_0 calls 0, and there is no such module"
