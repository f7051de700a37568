"""Dynamically quantized LSTM and GRU: every form computes the same bits; states load; what has no kernel is refused."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from qfx.config import default_dynamic_qconfig, float16_dynamic_qconfig, per_channel_dynamic_qconfig
from qfx.errors import ConfigError
from qfx.kernels.packing import packed_by
from qfx.nn import quantized
from qfx.nn.errors import InputError, ModuleTypeError, WeightTypeError

nnqd = quantized.dynamic
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    # torch.save and torch.load say so of any quantized tensor, once a process.
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
]

NAMES = ["LSTM", "GRU"]
SHAPES = {"plain": {}, "all": {"num_layers": 2, "bidirectional": True, "batch_first": True}}
ENGINES = [(e, torch.qint8) for e in ("fbgemm", "x86", "onednn", "qnnpack")] + [("fbgemm", torch.float16)]


def float_module(name, qconfig=default_dynamic_qconfig, **more):
    module = getattr(nn, name)(4, 5, **more).eval()
    module.qconfig = qconfig
    return module


def made(name, dtype=torch.qint8, engine=None, **more):
    qconfig = default_dynamic_qconfig if dtype == torch.qint8 else float16_dynamic_qconfig
    return getattr(nnqd, name).from_float(float_module(name, qconfig, **more), engine=engine)


def arguments(name, batch_first=False, num_layers=1, bidirectional=False):
    x = torch.randn(3, 7, 4) if batch_first else torch.randn(7, 3, 4)
    h = torch.randn(num_layers * (2 if bidirectional else 1), 3, 5)
    return x, ((h, h / 2) if name == "LSTM" else h)


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class OuterOfPacked(Outer):
    def forward(self, x: PackedSequence):
        return self.inner(x)


def scripted_and_loaded(module):
    script = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return script, torch.jit.load(file)


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("engine", "dtype"), ENGINES)
def test_close_to_float_and_the_same_in_every_form(same_bits, name, shape, engine, dtype):
    torch.backends.quantized.engine = engine
    module, (x, hx) = made(name, dtype, **SHAPES[shape]), arguments(name, **SHAPES[shape])
    dense = float_module(name, **SHAPES[shape])
    for key, weight in (module.get_weight() | module.get_bias()).items():
        setattr(dense, key, nn.Parameter(weight.dequantize() if weight.is_quantized else weight))
    torch.testing.assert_close(module(x, hx)[0], dense(x, hx)[0], atol=0.02, rtol=0)
    for one in (*scripted_and_loaded(Outer(module)), torch.fx.symbolic_trace(Outer(module))):
        assert same_bits(one(x), module(x))
    sequences = pack_sequence([torch.randn(n, 4) for n in (2, 6, 3)], enforce_sorted=False)
    for one in scripted_and_loaded(OuterOfPacked(module)):
        assert same_bits(one(sequences), module(sequences))
    copies = [copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module)), saved(module)]
    blank = getattr(nnqd, name)(4, 5, dtype=dtype, **SHAPES[shape])
    blank.load_state_dict(module.state_dict(), strict=True)
    for one in (*copies, blank):
        assert same_bits(one(x, hx), module(x, hx))
        assert repr(one) == repr(module)
        assert not one.training


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_sequence_is_its_sequences_one_by_one(name):
    module, lengths = made(name, engine="fbgemm", dtype=torch.float16), (2, 6, 3)
    sequences = [torch.randn(n, 4) for n in lengths]
    output, hidden = module(pack_sequence(sequences, enforce_sorted=False))
    padded, found = nn.utils.rnn.pad_packed_sequence(output)
    assert tuple(found) == lengths
    for i, sequence in enumerate(sequences):
        alone, last = module(sequence.unsqueeze(1))
        torch.testing.assert_close(padded[: lengths[i], i], alone[:, 0])
        h, expected = (hidden[0], last[0]) if name == "LSTM" else (hidden, last)
        torch.testing.assert_close(h[:, i], expected[:, 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("elsewhere", ["onednn", "qnnpack"])
def test_copies_and_states_keep_their_own_engine(same_bits, name, elsewhere):
    module, (x, hx) = made(name, engine="fbgemm"), arguments(name)
    y = module(x, hx)
    blank = getattr(nnqd, name)(4, 5, engine="fbgemm")
    with packed_by(elsewhere):
        blank.load_state_dict(module.state_dict())
        for one in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), blank):
            assert one.engine == "fbgemm"
            assert same_bits(one(x, hx), y)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_by_the_names_of_the_float_module(same_bits, name):
    module, other = made(name, **SHAPES["all"]), made(name, **SHAPES["all"])
    assert {*module.get_weight(), *module.get_bias()} == set(float_module(name, **SHAPES["all"])._flat_weights_names)
    assert all(weight.dtype == torch.qint8 for weight in module.get_weight().values())
    other.set_weight_bias(module.get_weight() | module.get_bias())
    x, hx = arguments(name, **SHAPES["all"])
    assert same_bits(other(x, hx), module(x, hx))
    incomplete = module.get_weight() | module.get_bias()
    del incomplete["bias_hh_l1_reverse"]
    with pytest.raises(InputError, match="needs bias_hh_l1_reverse; the kernels have no cell without bias"):
        other.set_weight_bias(incomplete)


def test_the_kernel_takes_the_parameter_objects():
    module, (x, hx) = made("LSTM"), arguments("LSTM")
    params = [one.param for one in module._all_weight_values]
    direct = torch.quantized_lstm(x, hx, params, True, 1, 0.0, False, False, False, dtype=torch.qint8, use_dynamic=True)
    assert torch.equal(direct[0], module(x, hx)[0])
    again = nnqd.PackedParameter(params[0])
    assert torch.equal(again._weight_ih.int_repr(), module.get_weight()["weight_ih_l0"].int_repr())
    assert again.seven_bits


def test_the_state_dict_is_plain_tensors_under_the_originals_keys():
    module = made("LSTM", num_layers=2)
    state = module.state_dict()
    assert list(state) == ["_all_weight_values.0.param", "_all_weight_values.1.param"]
    assert state._metadata[""] == {"version": 2}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    torch.load(file)  # which refuses everything but tensors and numbers
    with pytest.raises(RuntimeError, match=r'Missing key.*"_all_weight_values\.1\.param"'):
        module.load_state_dict({"_all_weight_values.0.param": state["_all_weight_values.0.param"]})
    with pytest.raises(RuntimeError, match=r"size mismatch for _all_weight_values\.0\.param.*\(24, 4\).*\(20, 4\)"):
        nnqd.LSTM(4, 5, 2).load_state_dict(nnqd.LSTM(4, 6, 2).state_dict())


@pytest.mark.parametrize("version", [None, 1])
def test_states_before_version_2_have_8_bit_inputs(version):
    module, (x, hx) = made("LSTM", engine="fbgemm"), arguments("LSTM")
    module.version = version
    module.set_weight_bias(module.get_weight() | module.get_bias())
    y, seven = module(x, hx)[0], made("LSTM", engine="fbgemm")
    assert not module._all_weight_values[0].seven_bits
    seven.load_state_dict(module.state_dict())
    assert torch.equal(seven(x, hx)[0], y)
    fresh = nnqd.LSTM(4, 5, engine="fbgemm")
    fresh.set_weight_bias(module.get_weight() | module.get_bias())
    assert not torch.equal(fresh(x, hx)[0], y)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("qconfig", [per_channel_dynamic_qconfig, None])
def test_from_float_asks_the_qconfig(name, qconfig):
    module = float_module(name, qconfig)
    weight = getattr(nnqd, name).from_float(module).get_weight()["weight_hh_l0"]
    assert weight.qscheme() == (torch.per_tensor_affine if qconfig is None else torch.per_channel_affine)
    assert (weight.dequantize() - module.weight_hh_l0).abs().max() <= 0.6 * module.weight_hh_l0.abs().max() / 127


@pytest.mark.parametrize("name", NAMES)
def test_the_base_class_makes_either(name):
    assert type(nnqd.RNNBase.from_float(float_module(name))) is getattr(nnqd, name)


@pytest.mark.parametrize(
    ("cls", "module", "message"),
    [
        (nnqd.LSTM, lambda: float_module("GRU"), "LSTM.from_float only works for LSTM but got: GRU"),
        (nnqd.RNNBase, lambda: nn.RNN(4, 5), "only works for LSTM, GRU, but got: RNN"),
        (nnqd.GRU, lambda: nn.GRU(4, 5), "qconfig defined: .* a GRU without one"),
        (nnqd.LSTM, lambda: float_module("LSTM", bias=False), "no kernel runs an LSTM without biases"),
        (nnqd.LSTM, lambda: float_module("LSTM", proj_size=2), "no kernel runs an LSTM with proj_size=2"),
    ],
)
def test_modules_that_cannot_be_converted_are_refused(cls, module, message):
    with pytest.raises(ModuleTypeError, match=message):
        cls.from_float(module())


def test_what_cannot_be_made_is_refused(observed):
    with pytest.raises(ConfigError, match="Unrecognized RNN mode: RNN; use LSTM or GRU"):
        nnqd.RNNBase("RNN", 4, 5)
    for dropout in (True, -0.5, 2):
        with pytest.raises(ValueError, match=r"number in range \[0, 1\]"):
            nnqd.LSTM(4, 5, 2, dropout=dropout)
    with pytest.warns(UserWarning, match="expects num_layers greater than 1"):
        nnqd.GRU(4, 5, dropout=0.5)
    with pytest.raises(WeightTypeError, match=r"stores torch\.qint8 or torch\.float16, not torch\.quint8"):
        nnqd.GRU(4, 5, dtype=torch.quint8)
    with pytest.raises(RuntimeError, match=r"weight observer has dtype torch\.quint8"):
        nnqd.GRU.from_float(float_module("GRU", SimpleNamespace(weight=lambda: observed(0.1, 0, torch.quint8))))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_another_size_are_refused(name):
    module, (x, hx) = made(name), arguments(name)
    with pytest.raises(RuntimeError, match="input must have 3 dimensions, got 2"):
        module(x[0])
    with pytest.raises(RuntimeError, match="Expected 4, got 3"):
        module(x[..., :3])
    with pytest.raises(RuntimeError, match=r"Expected hidden(\[0\])? size \(1, 2, 5\), got \[1, 3, 5\]"):
        module(x[:, :2], hx)


def test_representations_and_new_modules():
    assert repr(made("LSTM")) == "DynamicQuantizedLSTM(4, 5)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = nnqd.GRU(4, 5, 2, batch_first=True, dropout=0.5, bidirectional=True)
    assert repr(module) == (
        "DynamicQuantizedGRU(4, 5, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)"
    )
    assert module(torch.randn(3, 7, 4))[0].count_nonzero() == 0
    index = torch.tensor([1, 0])
    assert torch.equal(nnqd.apply_permutation(torch.eye(2), index), torch.eye(2)[:, index])
