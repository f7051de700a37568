"""Dynamic and weight-only quantization in FX mode: the original's numbers, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

import qfx

ao = pytest.importorskip("torch.ao.quantization")
fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
OURS: Any = (qfx, qfx.prepare_fx, qfx.convert_fx, qfx.convert_to_reference_fx)
THEIRS: Any = (ao, fx.prepare_fx, fx.convert_fx, fx.convert_to_reference_fx)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(8, 8), nn.ReLU()
        self.w, self.b = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.relu(self.layer(x)), self.w, self.b)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(4, 4, 2, bidirectional=True), nn.LSTM(8, 4)
        self.rnn, self.lstm_cell, self.gru_cell = nn.RNNCell(4, 4), nn.LSTMCell(4, 4), nn.GRUCell(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y, _ = self.gru(x)
        z, (h, _) = self.lstm(y)
        a = self.rnn(z[0], h[0])
        return self.lstm_cell(a, (h[0], a)), self.gru_cell(a, h[0])


class Stateful(nn.Module):
    """Recurrent layers whose state comes with the call, or from one another."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.second, self.cell, self.gru = nn.LSTM(4, 4), nn.LSTM(4, 4), nn.LSTMCell(4, 4), nn.GRU(4, 4)

    def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> Any:
        y, state = self.lstm(x, state)
        y, (h, c) = self.second(y, state)
        h, c = self.cell(y[1], self.cell(y[0], (h[0], c[0])))
        return self.gru(y, h.unsqueeze(0)), c


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.bags = nn.Embedding(10, 12), nn.EmbeddingBag(10, 12, include_last_offset=True, mode="sum")
        self.fc = nn.Linear(12, 2)

    def forward(self, i: torch.Tensor, offsets: torch.Tensor) -> Any:
        return self.fc(self.words(i)), self.bags(i, offsets)


def _results(library: Any, model: nn.Module, mapping: Any, x: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    lib, prepare, convert, to_reference = library
    prepared = prepare(copy.deepcopy(model), mapping(lib), x)
    prepared(*x)
    made, plain = convert(copy.deepcopy(prepared)), to_reference(copy.deepcopy(prepared))
    return tree_leaves(made(*x)), tree_leaves(plain(*x))


def _same(model: nn.Module, mapping: Any, x: Any) -> None:
    ours, theirs = _results(OURS, model.eval(), mapping, x), _results(THEIRS, model.eval(), mapping, x)
    assert all(map(torch.equal, ours[0], theirs[0]))
    assert all(map(torch.equal, ours[1], theirs[1]))


@pytest.mark.parametrize("engine", ["x86", "fbgemm", "onednn", "qnnpack"])
@pytest.mark.parametrize("name", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig"])
@pytest.mark.parametrize(("kind", "shape"), [(Linears, (3, 8)), (Recurrent, (3, 2, 4))], ids=["linear", "recurrent"])
def test_layers_that_quantize_their_input(engine: str, name: str, kind: Any, shape: tuple[int, ...]) -> None:
    if name.startswith("float16") and engine in ("onednn", "qnnpack"):
        engine = "fbgemm"  # the original has half floats with this engine and x86 only
    torch.backends.quantized.engine = engine
    _same(kind(), lambda lib: lib.QConfigMapping().set_global(getattr(lib, name)), (torch.randn(*shape),))


@pytest.mark.parametrize("name", ["default_dynamic_qconfig", "float16_dynamic_qconfig"])
def test_recurrent_layers_with_a_state(name: str) -> None:
    model, states = Stateful(), (torch.randn(1, 2, 4), torch.randn(1, 2, 4))
    inputs = (torch.randn(3, 2, 4), states)
    _same(model, lambda lib: lib.QConfigMapping().set_global(getattr(lib, name)), inputs)
    prepared = qfx.prepare_fx(model, qfx.QConfigMapping().set_global(getattr(qfx, name)), inputs)
    made = qfx.convert_fx(prepared, strict=True)
    assert {type(module).__module__ for module in made.children()} == {
        f"qfx.nn.quantized.dynamic.{each}" for each in ("rnn", "cell")
    }


@pytest.mark.parametrize("engine", ["x86", "fbgemm", "onednn", "qnnpack"])
def test_tables_beside_a_static_layer(engine: str) -> None:
    torch.backends.quantized.engine = engine

    def mapping(lib: Any) -> Any:
        made = lib.QConfigMapping().set_global(lib.get_default_qconfig("fbgemm"))
        made.set_object_type(nn.Embedding, lib.float_qparams_weight_only_qconfig)
        return made.set_object_type(nn.EmbeddingBag, lib.float_qparams_weight_only_qconfig_4bit)

    _same(Tables(), mapping, (torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 4])))
