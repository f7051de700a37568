"""Reference and statically quantized recurrent modules beside the original's."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from qfx.nn import quantizable, quantized

ao_quantizable = pytest.importorskip("torch.ao.nn.quantizable")
ao_quantized = pytest.importorskip("torch.ao.nn.quantized")
ao_qconfig = pytest.importorskip("torch.ao.quantization.qconfig")
ao_reference = pytest.importorskip("torch.ao.nn.quantized.reference")

reference = quantized.reference
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
    pytest.mark.filterwarnings("ignore:must run observer before calling calculate_qparams:UserWarning"),
    pytest.mark.filterwarnings("ignore:All inputs of this cat operator must share:UserWarning"),
]
NAMES = ["LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]
SHAPES = {"plain": {}, "all": {"num_layers": 2, "bidirectional": True, "batch_first": True}}


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [] if result is None else [tensor for part in result for tensor in flat(part)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def qparams(module, kind):
    found = {"is_decomposed": False}
    for name, weight in module.named_parameters():
        if "weight" not in name:
            continue
        if kind == "half":
            found[name] = {"qscheme": None, "dtype": torch.float16}
        elif kind == "per tensor":
            found[name] = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.01, "zero_point": 3}
        else:
            scale, zero_point = (torch.rand(len(weight)) * 0.01 + 0.01).tolist(), [0] * len(weight)
            found[name] = {"qscheme": torch.per_channel_affine, "dtype": torch.qint8, "axis": 0}
            found[name] |= {"scale": scale, "zero_point": zero_point}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_reference_constructors_and_converters_have_the_originals_parameters(name):
    for method in ("__init__", "from_float"):
        ours, theirs = (
            list(inspect.signature(getattr(getattr(family, name), method)).parameters.values())
            for family in (reference, ao_reference)
        )
        assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["per tensor", "per channel", "half"])
def test_reference_modules_compute_the_same_bits_and_load_each_others_states(name, shape, kind):
    more = {} if "Cell" in name else SHAPES[shape]
    module = getattr(nn, name)(4, 5, **more)
    parameters = qparams(module, kind)
    ours, theirs = (getattr(family, name).from_float(module, parameters) for family in (reference, ao_reference))
    x = torch.randn(3, 4) if "Cell" in name else torch.randn(3, 6, 4)
    inputs = [x, x[0]]
    if "Cell" not in name:
        inputs.append(nn.utils.rnn.pack_sequence([torch.randn(n, 4) for n in (2, 5, 3)], enforce_sorted=False))
    for each in inputs:
        assert same(ours(each), theirs(each))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert set(dir(theirs)) - set(dir(ours)) == set()
    assert repr(ours) == repr(theirs)
    if "Cell" in name:
        mine, original = ours.get_quantized_weight_hh(), theirs.get_quantized_weight_hh()
    else:
        mine = ours.get_quantized_weight_bias_dict()["weight_hh_l0"]
        original = theirs.get_quantized_weight_bias_dict()["weight_hh_l0"]
    assert mine.dtype == original.dtype
    assert torch.equal(*(w.int_repr() if w.is_quantized else w for w in (mine, original)))


def quint8(tensor):
    return torch.quantize_per_tensor(tensor, 0.03, 128, torch.quint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("split_gates", [False, True])
def test_a_quantized_lstm_loads_the_originals_state_and_computes_the_same_codes(shape, split_gates):
    module = nn.LSTM(4, 5, **SHAPES[shape]).eval()
    module.qconfig = ao_qconfig.get_default_qconfig("fbgemm")
    observed = ao_quantizable.LSTM.from_float(module, split_gates=split_gates)
    for _ in range(3):
        observed(torch.randn(6, 3, 4))
    theirs = ao_quantized.LSTM.from_observed(observed)
    ours, x = quantized.LSTM(4, 5, **SHAPES[shape], split_gates=split_gates), quint8(torch.randn(6, 3, 4))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    found, expected = ([tensor.int_repr() for tensor in flat(one(x))] for one in (ours, theirs))
    assert same(found, expected)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert set(dir(theirs)) - set(dir(ours)) == set()
    theirs.load_state_dict(ours.state_dict(), strict=True)


# The original mixes the heads up with batch_first, and quantizes bias_v with the range of bias_k.
@pytest.mark.parametrize("more", [{}, {"kdim": 6, "vdim": 7}, {"bias": False}, {"add_zero_attn": True}])
def test_quantized_attention_loads_the_originals_state_and_computes_the_same_codes(more):
    module = nn.MultiheadAttention(8, 2, **more).eval()
    module.qconfig = ao_qconfig.get_default_qconfig("fbgemm")
    observed = ao_quantizable.MultiheadAttention.from_float(module)
    sizes = (8, more.get("kdim", 8), more.get("vdim", 8))
    observed(*(torch.randn(5, 3, size) for size in sizes))
    theirs = ao_quantized.MultiheadAttention.from_observed(observed)
    ours, x = quantized.MultiheadAttention(8, 2, **more), [quint8(torch.randn(5, 3, size)) for size in sizes]
    ours.load_state_dict(theirs.state_dict(), strict=True)
    found, expected = ([tensor.int_repr() for tensor in flat(one(*x))] for one in (ours, theirs))
    assert same(found, expected)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell", "MultiheadAttention", "_LSTMLayer", "_LSTMSingleLayer"])
def test_quantizable_constructors_and_converters_have_the_originals_parameters(name):
    theirs = getattr(ao_quantizable, name, None) or getattr(ao_quantizable.modules.rnn, name)
    for method in ("__init__", "from_float", "from_params", "forward"):
        if not hasattr(theirs, method):
            continue
        ours = inspect.signature(getattr(getattr(quantizable, name), method)).parameters
        expected = inspect.signature(getattr(theirs, method)).parameters
        assert [(p.name, p.default, p.kind) for p in ours.values()] == [
            (p.name, p.default, p.kind) for p in expected.values()
        ]
