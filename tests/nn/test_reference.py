"""Reference modules: float arithmetic on weights that went through their integers."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from qfx.errors import ConfigError
from qfx.nn.quantized import reference

KINDS = [f"{kind}{d}d" for kind in ("Conv", "ConvTranspose") for d in (1, 2, 3)] + ["Linear"]


def qparams(scheme="per_tensor_affine", dtype=torch.qint8, count=8, **more):
    if scheme == "per_tensor_affine":
        return {"qscheme": torch.per_tensor_affine, "dtype": dtype, "scale": 0.02, "zero_point": 3} | more
    scale = torch.linspace(0.01, 0.03, count)
    zero_point = torch.arange(count, dtype=torch.int)
    return {
        "qscheme": getattr(torch, scheme),
        "dtype": dtype,
        "scale": scale,
        "zero_point": zero_point,
        "axis": 0,
    } | more


def float_module(name, **more):
    return nn.Linear(4, 8) if name == "Linear" else getattr(nn, name)(4, 8, 3, padding=1, **more)


def x_for(name):
    return torch.randn(2, 4) if name == "Linear" else torch.randn(2, 4, *[5] * int(name[-2]))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("scheme", ["per_tensor_affine", "per_channel_affine"])
@pytest.mark.parametrize("decomposed", [False, True])
def test_the_weight_goes_through_its_integers(name, scheme, decomposed):
    module = float_module(name)
    made = getattr(reference, name).from_float(
        module, qparams(scheme, count=module.weight.shape[0], is_decomposed=decomposed)
    )
    if scheme == "per_tensor_affine":
        expected = torch.quantize_per_tensor(module.weight, 0.02, 3, torch.qint8)
    else:
        expected = torch.quantize_per_channel(module.weight, made.weight_scale, made.weight_zero_point, 0, torch.qint8)
    found = made.get_quantized_weight()
    assert found.is_quantized is not decomposed
    assert torch.equal(found if decomposed else found.int_repr(), expected.int_repr())
    torch.testing.assert_close(made.get_weight(), expected.dequantize())
    copied = copy.deepcopy(module)
    copied.weight = nn.Parameter(expected.dequantize())
    x = x_for(name)
    torch.testing.assert_close(made(x), copied(x))
    assert made.weight.data_ptr() == module.weight.data_ptr()
    assert made._IS_REFERENCE


@pytest.mark.parametrize("dtype", [torch.quint8, torch.qint8, torch.qint32])
def test_every_stored_dtype(dtype):
    made = reference.Linear.from_float(nn.Linear(4, 8), qparams(dtype=dtype))
    assert made.get_quantized_weight().dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_plain_integer_dtypes_give_plain_integers(dtype):
    made = reference.Linear.from_float(nn.Linear(4, 8), qparams(dtype=dtype))
    codes = made.get_quantized_weight()
    assert codes.dtype == dtype
    torch.testing.assert_close(made.get_weight(), (codes.float() - 3) * 0.02)


def test_a_narrow_range_is_respected():
    made = reference.Linear.from_float(nn.Linear(4, 8), qparams(is_decomposed=True, quant_min=-2, quant_max=1))
    codes = made.get_quantized_weight()
    assert (codes.min(), codes.max()) == (-2, 1)


def test_half_floats_are_cast():
    module = nn.Linear(4, 8)
    made = reference.Linear.from_float(module, {"qscheme": torch.per_tensor_affine, "dtype": torch.float16})
    assert made.get_quantized_weight().dtype == torch.float16
    assert torch.equal(made.get_weight(), module.weight.half().float())


def test_no_scheme_leaves_the_weight_alone():
    made = reference.Linear.from_float(nn.Linear(4, 8), {"qscheme": None, "dtype": torch.float})
    assert made.get_weight() is made.weight


def test_the_default_is_a_scale_of_one():
    made = reference.Linear(4, 8)
    assert (made.weight_dtype, made.weight_qscheme, float(made.weight_scale)) == (
        torch.quint8,
        torch.per_tensor_affine,
        1.0,
    )


def test_what_no_reference_has_is_refused():
    with pytest.raises(ConfigError, match=r"qscheme: torch\.per_tensor_symmetric is not supported.*affine"):
        reference.Linear(4, 8, weight_qparams=qparams() | {"qscheme": torch.per_tensor_symmetric})
    with pytest.raises(ConfigError, match=r"dtype: torch\.bool is not supported"):
        reference.Conv1d(4, 8, 3, weight_qparams=qparams(dtype=torch.bool))


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_convolutions_pad_as_their_float_modules_do(mode):
    module, x = nn.Conv2d(4, 8, 3, padding=1, padding_mode=mode), torch.randn(1, 4, 5, 5)
    made = reference.Conv2d.from_float(module, qparams())
    module.weight = nn.Parameter(made.get_weight())
    assert torch.equal(made(x), module(x))


def test_a_transposed_convolution_takes_the_output_size():
    module, x = nn.ConvTranspose2d(4, 8, 3, stride=2), torch.randn(1, 4, 5, 5)
    made = reference.ConvTranspose2d.from_float(module, qparams())
    assert made(x, output_size=[12, 12]).shape == (1, 8, 12, 12)
    with pytest.raises(ValueError, match="requested an output size"):
        made(x, output_size=[20, 20])


@pytest.mark.parametrize("scheme", ["per_tensor_affine", "per_channel_affine"])
def test_state_loads_into_a_blank_module(scheme):
    module = reference.Linear.from_float(nn.Linear(4, 8), qparams(scheme))
    blank, x = reference.Linear(4, 8), torch.randn(2, 4)
    blank.load_state_dict(module.state_dict(), strict=True)
    for made in (blank, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(made(x), module(x))
        assert torch.equal(made.get_quantized_weight().int_repr(), module.get_quantized_weight().int_repr())
    assert set(module.state_dict()) == {
        "weight", "bias", "weight_scale", "weight_zero_point", "weight_axis", "weight_qscheme", "weight_dtype",
    }  # fmt: skip


def test_gradients_and_modes_are_those_of_the_float_module():
    module = nn.Linear(4, 8).eval()
    module.weight.requires_grad_(False)
    made = reference.Linear.from_float(module, qparams())
    assert (made.weight.requires_grad, made.bias.requires_grad, made.training) == (False, True, False)


@pytest.mark.parametrize("scheme", [torch.per_tensor_affine, torch.per_channel_affine])
def test_codes_of_a_quantized_tensor_stay_in_a_narrow_range(scheme):
    """A solver may choose a range that cuts values off; what is cut off gets the last code, not one behind it."""
    layer, many = nn.Linear(8, 3, bias=False), scheme == torch.per_channel_affine
    scale = torch.tensor([0.01, 0.02, 0.03]) if many else torch.tensor(0.01)
    told = {"qscheme": scheme, "dtype": torch.qint8, "scale": scale, "zero_point": torch.zeros_like(scale).int()}
    made = reference.Linear.from_float(layer, told | {"axis": 0, "quant_min": -8, "quant_max": 7})
    steps = scale.reshape(-1, 1) if many else scale
    expected = (layer.weight / steps).round().clamp(-8, 7).to(torch.int8)
    assert expected.min() == -8
    assert torch.equal(made.get_quantized_weight().int_repr(), expected)


@pytest.mark.parametrize("scheme", ["per_tensor_affine", "per_channel_affine"])
def test_a_traced_graph_shows_the_integers_of_a_decomposed_weight(scheme: str) -> None:
    told = qparams(scheme, count=8, is_decomposed=True, quant_min=-20, quant_max=20)
    made = reference.Linear.from_float(nn.Linear(4, 8), told)
    traced = torch.fx.symbolic_trace(made)
    calls = [node for node in traced.graph.nodes if "quantized_decomposed" in str(node.target)]
    assert [str(node.target).partition(".")[2].partition("_")[0] for node in calls] == ["quantize", "dequantize"]
    assert all(node.args[-3:-1] == (-20, 20) for node in calls)
    x = torch.randn(3, 4)
    assert torch.equal(traced(x), made(x))
