"""LSTM in parts: the float module's numbers; then observed, converted, saved, scripted; what is refused."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from qfx.config import get_default_qconfig
from qfx.errors import ConfigError
from qfx.nn import quantizable, quantized, workflow
from qfx.nn.errors import ModuleTypeError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

SHAPES = {
    "plain": {},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no bias": {"bias": False},
}


def float_lstm(shape="plain", **more):
    module = nn.LSTM(4, 5, **SHAPES[shape], **more).eval()
    module.qconfig = get_default_qconfig("fbgemm")
    return module


def calibrated(shape="plain", split_gates=False):
    observed = quantizable.LSTM.from_float(float_lstm(shape), split_gates=split_gates)
    for _ in range(3):
        observed(torch.randn(6, 3, 4))
    return observed


def quint8(*shape):
    return torch.quantize_per_tensor(torch.randn(*shape), 0.03, 128, torch.quint8)


def codes(result):
    return [tensor.int_repr() for tensor in (result[0], *result[1])]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(codes(a), codes(b), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split_gates", [False, True])
def test_the_parts_compute_what_the_whole_does(shape, split_gates):
    module, x = float_lstm(shape), torch.randn(6, 3, 4)
    parts = quantizable.LSTM.from_float(module, split_gates=split_gates)
    batch = 6 if shape == "all" else 3
    h, c = torch.randn(4 if shape == "all" else 1, batch, 5), torch.randn(4 if shape == "all" else 1, batch, 5)
    torch.testing.assert_close(parts(x), module(x))
    torch.testing.assert_close(parts(x, (h, c)), module(x, (h, c)))
    cell = parts.layers[0].layer_fw.cell
    assert cell.split_gates is split_gates
    assert len(parts.layers) == module.num_layers
    weight = torch.cat([part.weight for part in cell.igates.values()]) if split_gates else cell.igates.weight
    assert torch.equal(weight, module.weight_ih_l0)
    assert not parts.training


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split_gates", [False, True])
def test_the_integers_are_close_in_every_form(shape, split_gates):
    observed, x = calibrated(shape, split_gates), quint8(6, 3, 4)
    made = quantized.LSTM.from_observed(observed)
    y = made(x)
    assert type(made) is quantized.LSTM
    assert type(observed) is quantizable.LSTM
    assert (y[0].dequantize() - observed(x.dequantize())[0]).abs().max() < 0.1
    blank = quantized.LSTM(4, 5, **SHAPES[shape], split_gates=split_gates)
    blank.load_state_dict(made.state_dict(), strict=True)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(made), file)
    file.seek(0)
    for one in (blank, copy.deepcopy(made), pickle.loads(pickle.dumps(made)), torch.jit.load(file)):
        assert equal(one(x), y)
    assert repr(made).startswith("QuantizedLSTM(")


def test_states_may_be_given_by_layer():
    module, parts, x = float_lstm(num_layers=2), None, torch.randn(6, 3, 4)
    parts = quantizable.LSTM.from_float(module)
    h, c = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    torch.testing.assert_close(parts(x, [(h[0], c[0]), (h[1], c[1])]), module(x, (h, c)))


def test_a_quantized_cell_starts_with_the_qparams_it_is_told():
    made = quantized.LSTM.from_observed(calibrated())
    cell = made.layers[0].layer_fw.cell
    cell.initial_hidden_state_qparams, cell.initial_cell_state_qparams = (0.5, 3), (0.25, 7)
    h, c = cell.initialize_hidden(2, is_quantized=True)
    assert (h.q_scale(), h.q_zero_point(), c.q_scale(), c.q_zero_point()) == (0.5, 3, 0.25, 7)
    assert h.dequantize().count_nonzero() == c.dequantize().count_nonzero() == 0
    layer = made.layers[0].layer_fw
    assert layer(quint8(6, 3, 4))[0].shape == (6, 3, 5)


@pytest.mark.parametrize("split_gates", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(split_gates, bias):
    module, x = nn.LSTMCell(4, 5, bias=bias), torch.randn(3, 4)
    with pytest.raises(ModuleTypeError, match="without a qconfig"):
        quantizable.LSTMCell.from_float(module)
    module.qconfig = "given"
    cell = quantizable.LSTMCell.from_float(module, split_gates=split_gates)
    states = torch.randn(3, 5), torch.randn(3, 5)
    torch.testing.assert_close(cell(x), module(x))
    torch.testing.assert_close(cell(x, states), module(x, states))
    linears = [part for part in cell.modules() if isinstance(part, nn.Linear)]
    assert len(linears) == (8 if split_gates else 2)
    assert all(part.qconfig == "given" for part in (cell, *linears))
    assert torch.jit.script(cell)(x)[0].shape == (3, 5)


def test_a_module_in_training_is_prepared_for_training(monkeypatch):
    seen = []
    monkeypatch.setattr(
        workflow, "_provided", [workflow.Workflow(seen.append, lambda m: seen.append(m.training), None)]
    )
    quantizable.LSTM.from_float(float_lstm().train())
    assert seen == [True]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: quantizable.LSTM.from_float(nn.GRU(4, 5)), ModuleTypeError, "expects a LSTM, got GRU"),
        (lambda: quantizable.LSTM.from_float(nn.LSTM(4, 5)), ModuleTypeError, "needs a qconfig"),
        (lambda: quantizable._LSTMLayer.from_float(nn.LSTM(4, 5)), ModuleTypeError, "needs a qconfig"),
        (lambda: quantizable.LSTM.from_float(float_lstm(proj_size=2)), ModuleTypeError, r"no projection \(proj_size=2"),
        (lambda: quantizable.LSTM.from_observed(None), NotImplementedError, "convert it with qfx.nn.quantized.LSTM"),
        (
            lambda: quantized.LSTM.from_float(float_lstm()),
            UnsupportedError,
            r"a non-observed LSTM module\. Prepare",
        ),
        (lambda: quantized.LSTM.from_observed(nn.LSTM(4, 5)), AssertionError, "expects a quantizable.LSTM, got LSTM"),
        (lambda: quantizable.LSTM(4, 5, dropout=True), ConfigError, r"number in range \[0, 1\]"),
        (lambda: quantizable.LSTMCell.from_float(nn.GRUCell(4, 5)), AssertionError, "expects a LSTMCell, got GRUCell"),
        (
            lambda: quantizable.LSTMCell.from_params(torch.ones(20, 4), torch.ones(20, 5), torch.ones(20)),
            AssertionError,
            "both bi and bh, or neither",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_dropout_is_ignored_and_says_so():
    with pytest.warns(UserWarning, match="dropout option for quantizable LSTM is ignored"):
        quantizable.LSTM(4, 5, 2, dropout=0.5)


def test_without_eager_mode_there_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(workflow, "_provided", [])
    with pytest.raises(ConfigError, match=r"no eager mode is loaded.*import qfx\.eager"):
        quantizable.LSTM.from_float(float_lstm())
    given = workflow.Workflow(None, None, None)
    workflow.provide(given)
    assert workflow.workflow() is given
