"""Dynamically quantized cells: every form computes the same bits; states load; what has no kernel is refused."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from qfx.config import default_dynamic_qconfig, float16_dynamic_qconfig, per_channel_dynamic_qconfig
from qfx.errors import ConfigError
from qfx.kernels.packing import packed_by
from qfx.nn import quantized
from qfx.nn.errors import ModuleTypeError

nnqd = quantized.dynamic
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    # torch.save and torch.load say so of any quantized tensor, once a process.
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
]

KINDS = {"LSTMCell": {}, "GRUCell": {}, "RNNCell": {}, "RNNCell relu": {"nonlinearity": "relu"}}
ENGINES = [(e, torch.qint8) for e in ("fbgemm", "x86", "onednn", "qnnpack")] + [("fbgemm", torch.float16)]


def float_cell(kind, qconfig=default_dynamic_qconfig, **more):
    cell = getattr(nn, kind.split()[0])(4, 5, **KINDS[kind], **more)
    cell.qconfig = qconfig
    return cell


def made(kind, dtype=torch.qint8, engine=None):
    qconfig = default_dynamic_qconfig if dtype == torch.qint8 else float16_dynamic_qconfig
    return getattr(nnqd, kind.split()[0]).from_float(float_cell(kind, qconfig), engine=engine)


def arguments(kind):
    h = torch.randn(3, 5)
    return torch.randn(3, 4), ((h, h / 2) if kind == "LSTMCell" else h)


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("engine", "dtype"), ENGINES)
@pytest.mark.parametrize("bias", [True, False])
def test_close_to_float_and_the_same_in_every_form(same_bits, kind, engine, dtype, bias):
    torch.backends.quantized.engine = engine
    cell, (x, hx) = made(kind, dtype), arguments(kind)
    if not bias:
        without = type(cell)(4, 5, bias=False, dtype=dtype, **KINDS[kind])
        without.set_weight_bias({"weight": cell.get_weight(), "bias": {"bias_ih": None, "bias_hh": None}})
        cell = without
    dense = float_cell(kind, bias=bias)
    parameters = cell.get_weight() | (cell.get_bias() if bias else {})
    for key, weight in parameters.items():
        setattr(dense, key, nn.Parameter(weight.dequantize() if weight.is_quantized else weight))
    torch.testing.assert_close(cell(x, hx), dense(x, hx), atol=0.03, rtol=0)
    script = torch.jit.script(cell)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    for one in (script, torch.jit.load(file), torch.fx.symbolic_trace(nn.Sequential(cell))):
        assert same_bits(one(x), cell(x))
    blank = type(cell)(4, 5, bias=bias, dtype=dtype, **KINDS[kind])
    blank.load_state_dict(cell.state_dict(), strict=True)
    copies = [copy.deepcopy(cell), copy.copy(cell), pickle.loads(pickle.dumps(cell)), saved(cell)]
    for one in (*copies, blank):
        assert same_bits(one(x, hx), cell(x, hx))
        assert repr(one) == repr(cell)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_states_keep_their_own_engine(same_bits, kind):
    cell, (x, hx) = made(kind, engine="fbgemm"), arguments(kind)
    y, blank = cell(x, hx), type(cell)(4, 5, engine="fbgemm", **KINDS[kind])
    with packed_by("qnnpack"):
        blank.load_state_dict(cell.state_dict())
        for one in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell)), blank):
            assert one.engine == "fbgemm"
            assert same_bits(one(x, hx), y)


def test_the_state_dict_is_plain_tensors_under_the_originals_keys():
    state = made("GRUCell").state_dict()
    assert list(state) == ["_packed_weight_ih", "_packed_weight_hh"]
    assert state._metadata[""] == {"version": 1}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    torch.load(file)  # which refuses everything but tensors and numbers
    with pytest.raises(RuntimeError, match=r'Missing key.*"_packed_weight_hh"'):
        nnqd.GRUCell(4, 5).load_state_dict({"_packed_weight_ih": state["_packed_weight_ih"]})
    with pytest.raises(RuntimeError, match=r"size mismatch for _packed_weight_ih.*\(15, 4\).*\(18, 4\)"):
        nnqd.GRUCell(4, 6).load_state_dict(state)


def test_states_of_half_floats_turn_an_int8_cell_into_one_of_half_floats(same_bits):
    cell, (x, hx) = made("GRUCell", torch.float16), arguments("GRUCell")
    blank = nnqd.GRUCell(4, 5)
    blank.load_state_dict(cell.state_dict())
    assert same_bits(blank(x, hx), cell(x, hx))


def test_new_weights_go_to_the_engine_selected_then_unless_one_was_given():
    follows, stays = made("RNNCell"), made("RNNCell", engine="fbgemm")
    parameters = {"weight": follows.get_weight(), "bias": follows.get_bias()}
    with packed_by("onednn"):
        for cell in (follows, stays):
            cell.set_weight_bias(parameters)
    assert (follows.engine, stays.engine) == ("onednn", "fbgemm")


@pytest.mark.parametrize("kind", KINDS)
def test_from_float(kind):
    module = float_cell(kind, per_channel_dynamic_qconfig)
    for cell in (made(kind), nnqd.RNNCellBase.from_float(module)):
        assert type(cell) is getattr(nnqd, kind.split()[0])
        assert getattr(cell, "nonlinearity", "relu") == KINDS[kind].get(
            "nonlinearity", cell.__dict__.get("nonlinearity", "relu")
        )
    assert cell.get_weight()["weight_ih"].qscheme() == torch.per_channel_affine
    assert torch.equal(cell.bias_hh, module.bias_hh)


@pytest.mark.parametrize(
    ("cls", "module", "message"),
    [
        (nnqd.LSTMCell, lambda: float_cell("GRUCell"), "LSTMCell.from_float only works for LSTMCell but got: GRUCell"),
        (nnqd.GRUCell, lambda: nn.GRUCell(4, 5), "qconfig defined: .* a GRUCell without one"),
        (nnqd.RNNCell, lambda: float_cell("RNNCell", bias=False), "a cell without biases"),
    ],
)
def test_modules_that_cannot_be_converted_are_refused(cls, module, message):
    with pytest.raises(ModuleTypeError, match=message):
        cls.from_float(module())


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(ConfigError, match="Unknown nonlinearity: gelu; use tanh or relu"):
        nnqd.RNNCell(4, 5, nonlinearity="gelu")


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_another_size_are_refused(kind):
    cell, (x, hx) = made(kind), arguments(kind)
    with pytest.raises(RuntimeError, match="inconsistent input_size: got 3, expected 4"):
        cell(x[:, :3])
    with pytest.raises(RuntimeError, match=r"Input batch size 2 doesn't match hidden(\[0\])? batch size 3"):
        cell(x[:2], hx)
    narrow = (hx[0], hx[1][:, :4]) if kind == "LSTMCell" else hx[:, :4]
    with pytest.raises(RuntimeError, match=r"hidden(\[1\])? has inconsistent hidden_size: got 4, expected 5"):
        cell(x, narrow)


def test_representations():
    assert repr(nnqd.LSTMCell(4, 5)) == "DynamicQuantizedLSTMCell(4, 5)"
    assert repr(nnqd.RNNCell(4, 5, False, "relu")) == "DynamicQuantizedRNNCell(4, 5, bias=False, nonlinearity=relu)"
