"""LSTMs and attention quantized as a whole: the tensors in the tuples they take and give cross as quantized values."""

from __future__ import annotations

import copy
import operator
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.nn import quantizable, quantized

MAPPING = qfx.get_default_qconfig_mapping("x86")
PREPARE = (
    qfx.PrepareCustomConfig()
    .set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    .set_float_to_observed_mapping(nn.MultiheadAttention, quantizable.MultiheadAttention)
)
CONVERT = (
    qfx.ConvertCustomConfig()
    .set_observed_to_quantized_mapping(quantizable.LSTM, quantized.LSTM)
    .set_observed_to_quantized_mapping(quantizable.MultiheadAttention, quantized.MultiheadAttention)
)
STATES = (torch.randn(5, 3, 8), torch.randn(1, 3, 6), torch.randn(1, 3, 6))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        out, (hidden, cell) = self.lstm(x, (h, c))
        return self.fc(out), hidden, cell


class Whole(Recurrent):
    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        return self.lstm(x, hx=(h, c))


class Chained(nn.Module):
    """The states of one are those of the next, as one value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(8, 6), nn.LSTM(6, 6)

    def forward(self, x: torch.Tensor) -> Any:
        out, states = self.first(x)
        return self.second(out, states)[0]


class Attention(nn.Module):
    def __init__(self, weights: bool = False) -> None:
        super().__init__()
        self.weights, self.mha, self.fc = weights, nn.MultiheadAttention(8, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        out, weights = self.mha(x, key=x, value=x)
        return (self.fc(out), weights) if self.weights else self.fc(out)


def quantized_model(
    model: nn.Module, *inputs: torch.Tensor, convert: Any = qfx.convert_fx, custom: Any = CONVERT
) -> Any:
    prepared = qfx.prepare_fx(model.eval(), MAPPING, inputs, PREPARE)
    prepared(*inputs)
    return prepared, convert(prepared, custom)


def tensors(value: Any) -> list[torch.Tensor]:
    return [each for each in torch.utils._pytree.tree_leaves(value) if isinstance(each, torch.Tensor)]


def close(model: nn.Module, made: Any, *inputs: torch.Tensor, tolerance: float = 0.1) -> None:
    expected, found = tensors(model(*inputs)), tensors(made(*inputs))
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert not other.is_quantized
        assert float((one - other).detach().abs().max()) < tolerance


def count(gm: Any, target: Any) -> int:
    return sum(node.target is target or node.target == target for node in gm.graph.nodes)


@pytest.mark.parametrize("convert", [qfx.convert_fx, qfx.convert_to_reference_fx])
def test_an_lstm_gives_three_quantized_tensors(convert: Any) -> None:
    model = Recurrent()
    prepared, made = quantized_model(model, *STATES, convert=convert)
    assert isinstance(prepared.lstm, quantizable.LSTM)
    assert isinstance(made.lstm, quantized.LSTM)
    assert count(made, operator.getitem) == 4
    assert count(made, tuple) == 0
    assert count(made, torch.quantize_per_tensor) == (3 if convert is qfx.convert_fx else 4)
    close(model, made, *STATES)


def test_what_reads_the_output_is_an_integer_kernel() -> None:
    _, made = quantized_model(Recurrent(), *STATES)
    assert isinstance(made.fc, quantized.Linear)
    (called,) = [node for node in made.graph.nodes if node.target == "fc"]
    assert called.args[0].target is operator.getitem
    assert count(made, "dequantize") == 3


def test_a_tuple_that_is_read_as_a_whole_is_made_again() -> None:
    model = Whole()
    _, made = quantized_model(model, *STATES)
    assert count(made, tuple) == 2
    close(model, made, *STATES)


def test_states_may_go_on_as_one_value() -> None:
    model, x = Chained(), STATES[0]
    prepared, made = quantized_model(model, x)
    assert count(made, torch.quantize_per_tensor) == 1
    assert count(made, "dequantize") == 1
    assert len([m for m in prepared.children() if isinstance(m, qfx.HistogramObserver)]) == 1
    close(model, made, x)


def test_tensors_nobody_reads_get_no_node() -> None:
    _, made = quantized_model(Chained(), STATES[0])
    assert count(made, operator.getitem) == 5


@pytest.mark.parametrize("weights", [False, True])
def test_attention_takes_one_value_three_times(weights: bool) -> None:
    model, x = Attention(weights), torch.randn(5, 3, 8)
    _, made = quantized_model(model, x)
    assert isinstance(made.mha, quantized.MultiheadAttention)
    assert count(made, torch.quantize_per_tensor) == 1
    close(model, made, x, tolerance=0.15)


def test_without_a_quantized_class_it_stays_float() -> None:
    model = Recurrent()
    _, made = quantized_model(model, *STATES, custom=None)
    assert isinstance(made.lstm, quantizable.LSTM)
    close(model, made, *STATES)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda gm: pickle.loads(pickle.dumps(gm))])
@pytest.mark.parametrize("stage", [0, 1])
def test_copies_and_pickles_do_the_same(again: Any, stage: int) -> None:
    made = quantized_model(Recurrent(), *STATES)[stage]
    for one, other in zip(tensors(made(*STATES)), tensors(again(made)(*STATES)), strict=True):
        assert torch.equal(one, other)
