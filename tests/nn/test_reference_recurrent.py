"""Reference LSTM, GRU and cells: the float modules on weights that went through their integers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from qfx.errors import ConfigError
from qfx.nn import quantized
from qfx.nn.errors import InputError

reference = quantized.reference
SEQUENCES = ["LSTM", "GRU"]
CELLS = {"LSTMCell": {}, "GRUCell": {}, "RNNCell": {}, "RNNCell relu": {"nonlinearity": "relu"}}
SHAPES = {
    "plain": {},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no bias": {"bias": False},
}


def qparams(module, kind="int8"):
    found = {"is_decomposed": kind == "decomposed"}
    for name, weight in module.named_parameters():
        if "weight" in name:
            if kind == "channels":
                scale = weight.detach().abs().amax(1) / 127
                zero_point, axis = torch.zeros(len(weight), dtype=torch.int), 0
                found[name] = {"qscheme": torch.per_channel_affine, "dtype": torch.qint8, "axis": axis}
                found[name] |= {"scale": scale, "zero_point": zero_point}
            elif kind in ("half", "none"):
                scheme = torch.per_tensor_affine if kind == "half" else None
                found[name] = {"qscheme": scheme, "dtype": torch.float16}
            else:
                found[name] = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.01, "zero_point": 3}
    return found


def rounded(module, kind):
    """The float module with weights that went through their integers another way."""
    made = copy.deepcopy(module)
    for name, weight in made.named_parameters():
        if "weight" not in name or kind == "none":
            continue
        if kind == "half":
            value = weight.half().float()
        elif kind == "channels":
            scale = (weight.abs().amax(1) / 127)[:, None]
            value = (weight * (1 / scale)).round() * scale
        else:
            value = ((weight * (1 / torch.tensor(0.01))).round() + 3).clamp(-128, 127).sub(3) * 0.01
        weight.data.copy_(value)
    return made


KINDS = ["int8", "channels", "decomposed", "half", "none"]


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_sequences_compute_as_the_float_module_with_rounded_weights(name, shape, kind):
    module = getattr(nn, name)(4, 5, **SHAPES[shape]).eval()
    made = getattr(reference, name).from_float(module, qparams(module, kind))
    expected = rounded(module, kind)
    packed = pack_sequence([torch.randn(n, 4) for n in (2, 5, 3)], enforce_sorted=False)
    for x in (torch.randn(6, 3, 4), torch.randn(6, 4)):  # a batch, and one sequence
        torch.testing.assert_close(made(x), expected(x))
    torch.testing.assert_close(made(packed)[0].data, expected(packed)[0].data)
    x = torch.randn(6, 3, 4)
    y, hx = made(x)
    torch.testing.assert_close(made(x, hx), expected(x, hx))
    blank = getattr(reference, name)(4, 5, **SHAPES[shape], weight_qparams_dict=qparams(module, kind))
    blank.load_state_dict(made.state_dict(), strict=True)
    for one in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), blank):
        assert torch.equal(one(x)[0], y)
    assert made.weight_ih_l0 is module.weight_ih_l0
    assert not made.training


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("weights", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_cells_compute_as_the_float_module_with_rounded_weights(kind, weights, bias):
    module = getattr(nn, kind.split()[0])(4, 5, bias=bias, **CELLS[kind])
    made = getattr(reference, kind.split()[0]).from_float(module, qparams(module, weights))
    expected, x, h = rounded(module, weights), torch.randn(3, 4), torch.randn(3, 5)
    hx = (h, h / 2) if kind == "LSTMCell" else h
    first = (h[0], h[1]) if kind == "LSTMCell" else h[0]
    for arguments in ((x,), (x, hx), (x[0],), (x[0], first)):
        torch.testing.assert_close(made(*arguments), expected(*arguments))
    blank = type(made)(4, 5, bias=bias, **CELLS[kind], weight_qparams_dict=qparams(module, weights))
    blank.load_state_dict(made.state_dict(), strict=True)
    for one in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), blank):
        assert torch.equal(torch.stack([*one(x)]), torch.stack([*made(x)]))
    assert made.weight_ih is module.weight_ih


def test_gradients_reach_the_weights_and_a_copy_after_a_step_works():
    module = nn.LSTM(4, 5)
    made = reference.LSTM.from_float(module, qparams(module, "half"))
    made(torch.randn(2, 3, 4))[0].sum().backward()
    assert module.weight_ih_l0.grad.abs().sum() > 0
    copy.deepcopy(made)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_a_projection_is_kept():
    module, x = nn.LSTM(4, 5, proj_size=2), torch.randn(6, 3, 4)
    made = reference.LSTM.from_float(module, qparams(module, "half"))
    torch.testing.assert_close(made(x), rounded(module, "half")(x))
    with pytest.raises(ValueError, match="only supported for LSTM"):
        reference.GRU(4, 5, proj_size=2)


@pytest.mark.parametrize("name", [*SEQUENCES, *CELLS])
def test_forwards_trace(name):
    cell = "Cell" in name
    module = getattr(nn, name.split()[0])(4, 5, **(CELLS[name] if cell else SHAPES["all"])).eval()
    made = getattr(reference, name.split()[0]).from_float(module, qparams(module))
    x = torch.randn(3, 4) if cell else torch.randn(3, 6, 4)
    graph = torch.fx.symbolic_trace(nn.Sequential(made))
    torch.testing.assert_close(graph(x), made(x), atol=0, rtol=0)


def test_integers_by_name():
    module = nn.LSTM(4, 5, 2)
    made = reference.LSTM.from_float(module, qparams(module))
    found = made.get_quantized_weight_bias_dict()
    assert list(found) == module._flat_weights_names
    assert torch.equal(found["weight_hh_l1"].dequantize(), made.get_flat_weights()[5])
    assert found["bias_ih_l0"] is module.bias_ih_l0
    assert reference.get_quantized_weight(made, "weight_ih_l7") is None
    cell = reference.GRUCell.from_float(nn.GRUCell(4, 5), qparams(nn.GRUCell(4, 5)))
    assert torch.equal(cell.get_quantized_weight_ih().dequantize(), cell.get_weight_ih())
    assert torch.equal(cell.get_quantized_weight_hh().dequantize(), cell.get_weight_hh())
    assert (cell.weight_ih_dtype, cell.weight_hh_qscheme) == (torch.qint8, torch.per_tensor_affine)


def test_they_become_dynamic_modules():
    module, x = nn.LSTM(4, 5, 2, bidirectional=True), torch.randn(6, 3, 4)
    for kind in ("int8", "half"):
        made = reference.LSTM.from_float(module, qparams(module, kind))
        lowered = quantized.dynamic.LSTM.from_reference(made)
        torch.testing.assert_close(lowered(x)[0], made(x)[0], atol=0.02, rtol=0)
    for name, more in CELLS.items():
        cell, x = getattr(nn, name.split()[0])(4, 5, **more), torch.randn(3, 4)
        made = getattr(reference, name.split()[0]).from_float(cell, qparams(cell))
        lowered = getattr(quantized.dynamic, name.split()[0]).from_reference(made)
        torch.testing.assert_close(lowered(x), made(x), atol=0.03, rtol=0)
    for cls, module in ((quantized.dynamic.GRU, nn.GRU(4, 5)), (quantized.dynamic.GRUCell, nn.GRUCell(4, 5))):
        with pytest.raises(AssertionError, match="needs a reference"):
            cls.from_reference(module)


def test_what_no_reference_has_is_refused():
    module = nn.GRUCell(4, 5)
    with pytest.raises(
        ConfigError, match=r"needs exactly weight_ih, weight_hh .*; missing: weight_hh, unknown: weight"
    ):
        reference.GRUCell(4, 5, weight_qparams_dict={"weight_ih": {}, "weight": {}, "is_decomposed": False})
    symmetric = qparams(module)
    symmetric["weight_hh"] = symmetric["weight_hh"] | {"qscheme": torch.per_tensor_symmetric}
    with pytest.raises(ConfigError, match=r"per_tensor_symmetric is not supported in QuantizedGRUCell\(Reference\)"):
        reference.GRUCell(4, 5, weight_qparams_dict=symmetric)
    strange = qparams(module)
    strange["weight_hh"] = strange["weight_hh"] | {"dtype": torch.bool}
    with pytest.raises(ConfigError, match=r"dtype: torch\.bool is not supported for weight_hh"):
        reference.GRUCell(4, 5, weight_qparams_dict=strange)
    with pytest.raises(ConfigError, match="Unknown nonlinearity: gelu"):
        reference.RNNCell(4, 5, nonlinearity="gelu")
    with pytest.raises(InputError, match="Expected input to be 1-D or 2-D but received 3-D tensor"):
        reference.RNNCell(4, 5)(torch.randn(1, 2, 4))


def test_representations():
    assert repr(reference.GRUCell(4, 5)) == "QuantizedGRUCell(Reference)(4, 5)"
    assert repr(reference.LSTM(4, 5, 2)) == "QuantizedLSTM(Reference)(4, 5, num_layers=2)"
