"""LSTMs as custom modules in FX mode: the original's numbers, bit for bit."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn

import qfx

ao = pytest.importorskip("torch.ao.quantization")
fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
custom = pytest.importorskip("torch.ao.quantization.fx.custom_config")
STATES = (torch.rand(5, 3, 8), torch.rand(1, 3, 6), torch.randn(1, 3, 6))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        out, (hidden, cell) = self.lstm(x, (h, c))
        return self.fc(out), hidden, cell


class Kept(nn.Module):
    def forward(self, x: Any) -> Any:
        return x


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.after = nn.LSTM(8, 6, 1), Kept()

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        return self.after(self.lstm(x, (h, c)))


def converted(library: Any, observed: Any, made: Any, configs: Any, functions: Any, model: nn.Module) -> Any:
    before = configs.PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, observed)
    after = configs.ConvertCustomConfig().set_observed_to_quantized_mapping(observed, made)
    prepared = functions.prepare_fx(model, library.get_default_qconfig_mapping(), STATES, before)
    prepared(*STATES)
    return functions.convert_fx(prepared, after)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [Recurrent, Whole])
@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_numbers_and_nodes_are_the_same(kind: Any, engine: str) -> None:
    torch.backends.quantized.engine = engine
    model = kind().eval()
    theirs = converted(ao, torch.ao.nn.quantizable.LSTM, torch.ao.nn.quantized.LSTM, custom, fx, model)
    ours = converted(qfx, qfx.nn.quantizable.LSTM, qfx.nn.quantized.LSTM, qfx, qfx, model)
    leaves = torch.utils._pytree.tree_leaves
    for one, other in zip(leaves(theirs(*STATES)), leaves(ours(*STATES)), strict=True):
        assert torch.equal(one, other)
    for target in (torch.quantize_per_tensor, "dequantize", operator.getitem, tuple):
        counts = [sum(node.target == target for node in gm.graph.nodes) for gm in (theirs, ours)]
        assert counts[0] == counts[1], target
