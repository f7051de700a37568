"""Functions on quantized tensors, and arithmetic as modules."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from qfx.errors import KernelError, QfxError
from qfx.nn import quantized
from qfx.nn.quantized import functional as qF


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions(codes, int8, dims):
    x, weight, bias = codes(2, 4, *[6] * dims), int8(8, 2, *[3] * dims, axis=0), torch.randn(8)
    module = getattr(quantized, f"Conv{dims}d")(4, 8, 3, 2, 1, 1, 2)
    module.set_weight_bias(weight, bias)
    module.scale, module.zero_point = 0.1, 20
    y = getattr(qF, f"conv{dims}d")(x, weight, bias, 2, 1, 1, 2, scale=0.1, zero_point=20)
    assert torch.equal(y.int_repr(), module(x).int_repr())


def test_linear(codes, int8):
    x, weight = codes(3, 4), int8(8, 4)
    expected = torch.quantize_per_tensor(F.linear(x.dequantize(), weight.dequantize()), 0.02, 50, torch.quint8)
    y = qF.linear(x, weight)
    assert (y.q_scale(), y.q_zero_point()) == (x.q_scale(), x.q_zero_point())
    assert (y.int_repr().int() - expected.int_repr().int()).abs().max() <= 1


KEPT = {
    "avg_pool2d": (F.avg_pool2d, (2, 4, 6, 6), (2,)),
    "avg_pool3d": (F.avg_pool3d, (2, 4, 6, 6, 6), (2,)),
    "adaptive_avg_pool2d": (F.adaptive_avg_pool2d, (2, 4, 6, 6), (3,)),
    "adaptive_avg_pool3d": (F.adaptive_avg_pool3d, (2, 4, 6, 6, 6), (3,)),
    "max_pool1d": (F.max_pool1d, (2, 4, 6), (2,)),
    "max_pool2d": (F.max_pool2d, (2, 4, 6, 6), (3, 1, 1)),
    "interpolate": (F.interpolate, (2, 4, 6, 6), (None, 2.0)),
    "leaky_relu": (F.leaky_relu, (3, 4), (0.2,)),
    "hardtanh": (F.hardtanh, (3, 4), (-0.5, 1.5)),
    "threshold": (F.threshold, (3, 4), (0.5, 1.0)),
    "clamp": (torch.clamp, (3, 4), (-0.5, 1.5)),
}
LEFT_TO_THE_ENGINE = {
    "relu6": (lambda x: quantized.ReLU6()(x), F.relu6),
    "relu6 in place": (lambda x: quantized.ReLU6(inplace=True)(x), F.relu6),
    "hardtanh": (lambda x: qF.hardtanh(x, -0.5, 1.5), lambda x: F.hardtanh(x, -0.5, 1.5)),
    "hardtanh in place": (lambda x: qF.hardtanh(x, -0.5, 1.5, True), lambda x: F.hardtanh(x, -0.5, 1.5)),
    "clamp": (lambda x: qF.clamp(x, -0.5, None), lambda x: torch.clamp(x, min=-0.5)),
    "average": (
        lambda x: qF.avg_pool2d(x, 3, 2, 1, False, False),
        lambda x: F.avg_pool2d(x, 3, 2, 1, False, False),
    ),
    "divisor": (lambda x: qF.avg_pool2d(x, 2, divisor_override=3), lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
    "max": (lambda x: qF.max_pool2d(x, 3, 1, 1, 2), lambda x: F.max_pool2d(x, 3, 1, 1, 2)),
    "max of one place": (lambda x: qF.max_pool2d(x, 1, 2), lambda x: F.max_pool2d(x, 1, 2)),
}
REQUANTIZED = {"celu": F.celu, "elu": F.elu, "hardswish": F.hardswish}


@pytest.mark.parametrize("name", KEPT)
def test_functions_that_keep_the_qparams(codes, name):
    function, shape, arguments = KEPT[name]
    x = codes(*shape)
    expected = torch.quantize_per_tensor(function(x.dequantize(), *arguments), 0.02, 50, torch.quint8)
    y = getattr(qF, name)(x, *arguments)
    assert (y.int_repr().int() - expected.int_repr().int()).abs().max() <= 1
    assert y.q_scale() == x.q_scale()


@pytest.mark.parametrize("engine", [e for e in torch.backends.quantized.supported_engines if e != "none"])
@pytest.mark.parametrize("name", LEFT_TO_THE_ENGINE)
def test_no_engine_gets_them_wrong(codes, name, engine):
    torch.backends.quantized.engine = engine
    function, of_floats = LEFT_TO_THE_ENGINE[name]
    x = codes(2, 4, 6, 8).contiguous(memory_format=torch.channels_last)
    expected = torch.quantize_per_tensor(of_floats(x.dequantize()), 0.02, 50, torch.quint8).int_repr()
    found = function(x)
    assert (found.int_repr().int() - expected.int()).abs().max() <= (1 if "average" in name or name == "divisor" else 0)
    if "in place" in name:
        assert found.data_ptr() == x.data_ptr()
        assert torch.equal(x.int_repr(), expected)


@pytest.mark.parametrize("name", REQUANTIZED)
def test_functions_with_an_output_scale(codes, name):
    x = codes(3, 4)
    expected = torch.quantize_per_tensor(REQUANTIZED[name](x.dequantize()), 0.03, 30, torch.quint8)
    assert (getattr(qF, name)(x, 0.03, 30).int_repr().int() - expected.int_repr().int()).abs().max() <= 1


def test_leaky_relu_rescales_but_not_in_place(codes):
    x = codes(3, 4)
    y = qF.leaky_relu(x, 0.1, scale=0.05, zero_point=9)
    assert (y.q_scale(), y.q_zero_point()) == (0.05, 9)
    with pytest.raises(ValueError, match="Cannot rescale with `inplace`"):
        qF.leaky_relu(x, 0.1, True, 0.05, 9)


def test_in_place_functions_write_into_their_input(codes):
    x = codes(3, 4)
    assert qF.hardtanh(x, -0.1, 0.1, inplace=True).data_ptr() == x.data_ptr()
    assert qF.hardsigmoid(codes(3, 4)).q_scale() == 1 / 256


@pytest.mark.parametrize("name", [name for name in KEPT if "max_pool" not in name] + [*REQUANTIZED, "hardsigmoid"])
def test_float_inputs_are_refused(name):
    arguments = KEPT[name][2] if name in KEPT else () if name == "hardsigmoid" else (0.1, 0)
    said = f"functional.{name}" if name.startswith("adaptive") else name  # as the original has it
    with pytest.raises(ValueError, match=f"'quantized.{said}' must be quantized! It is torch.float32") as caught:
        getattr(qF, name)(torch.randn(2, 4, 6, 6), *arguments)
    assert isinstance(caught.value, KernelError)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: qF.conv1d(x, w, None, padding_mode="reflect"), NotImplementedError, "Only zero-padding"),
        (lambda x, w: qF.conv1d(torch.ones(1), w, None), NotImplementedError, "quint8 is supported for activation"),
        (lambda x, w: qF.conv1d(x, torch.ones(1), None), NotImplementedError, "qint8 is supported for weight"),
        (lambda x, w: qF.conv1d(x[0], w, None), ValueError, r"must be `\(N, C, L\)`"),
        (lambda x, w: qF.max_pool1d(x, 2, return_indices=True), NotImplementedError, "return_indices"),
        (lambda x, w: qF.threshold(x, None, 1.0), ValueError, "'threshold' must be specified"),
        (lambda x, w: qF.threshold(x, 1.0, None), ValueError, "'value' must be specified"),
    ],
)
def test_what_no_kernel_does(codes, int8, call, error, message):
    with pytest.raises(error, match=message) as caught:
        call(codes(1, 4, 6), int8(8, 4, 3))
    assert isinstance(caught.value, QfxError)


def test_old_names_warn(codes):
    x = codes(1, 2, 4, 4)
    with pytest.warns(UserWarning, match="Use interpolate instead"):
        y = qF.upsample(x, scale_factor=2)
    assert torch.equal(y.int_repr(), qF.interpolate(x, scale_factor=2).int_repr())
    with pytest.warns(UserWarning, match="Use interpolate instead"):
        assert qF.upsample_nearest(x, 8).shape == (1, 2, 8, 8)
    with pytest.warns(UserWarning, match="Use interpolate instead"):
        assert qF.upsample_bilinear(x, 8).shape == (1, 2, 8, 8)


OPERATIONS = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "add_relu": lambda x, y: (x + y).relu(),
    "matmul": lambda x, y: x @ y,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_of_two_tensors(codes, name):
    x, y = codes(4, 4), codes(4, 4, scale=0.03, zero_point=9)
    expected = OPERATIONS[name](x.dequantize(), y.dequantize())
    for module in (quantized.FloatFunctional(), quantized.FXFloatFunctional()):
        assert torch.equal(getattr(module, name)(x.dequantize(), y.dequantize()), expected)
    module = quantized.QFunctional()
    module.scale, module.zero_point = 0.1, 100
    found = getattr(module, name)(x, y)
    codes_expected = torch.quantize_per_tensor(expected, 0.1, 100, torch.quint8)
    assert (found.int_repr().int() - codes_expected.int_repr().int()).abs().max() <= 1


def test_arithmetic_with_numbers_and_lists(codes):
    x = codes(4, 4)
    for module in (quantized.FloatFunctional(), quantized.FXFloatFunctional()):
        assert torch.equal(module.add_scalar(x.dequantize(), 2.0), x.dequantize() + 2)
        assert torch.equal(module.mul_scalar(x.dequantize(), 2.0), x.dequantize() * 2)
        assert module.cat([x.dequantize()] * 2, dim=1).shape == (4, 8)
    module = quantized.QFunctional()
    torch.testing.assert_close(module.mul_scalar(x, 2.0).dequantize(), x.dequantize() * 2)
    torch.testing.assert_close(module.add_scalar(x, 2.0).dequantize(), x.dequantize() + 2, atol=0.02, rtol=0.0)
    assert module.cat([x, x], dim=1).shape == (4, 8)


def test_results_of_two_tensors_are_observed_and_those_with_a_number_are_not(observed):
    module, x = quantized.FloatFunctional(), torch.ones(2, 2)

    class Counting(torch.nn.Identity):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x

    module.activation_post_process = counter = Counting()
    for name in OPERATIONS:
        getattr(module, name)(x, x)
    module.cat([x, x])
    assert counter.calls == 5
    module.add_scalar(x, 1.0)
    module.mul_scalar(x, 1.0)
    assert counter.calls == 5
    module.activation_post_process = torch.nn.Module()
    module.activation_post_process.calculate_qparams = observed(0.25, 3).calculate_qparams
    made = quantized.QFunctional.from_float(module)
    assert (made.scale, made.zero_point) == (0.25, 3)


@pytest.mark.parametrize("cls", [quantized.FloatFunctional, quantized.FXFloatFunctional, quantized.QFunctional])
def test_functional_modules_are_not_called(cls):
    with pytest.raises(RuntimeError, match=r"not intended to use the 'forward'.*such as .add") as caught:
        cls()(torch.ones(1))
    assert isinstance(caught.value, QfxError)


def test_the_state_of_arithmetic():
    module = quantized.QFunctional()
    module.scale, module.zero_point = 0.1, 100
    assert list(module.state_dict()) == ["scale", "zero_point"]
    for made in (quantized.QFunctional(), copy.deepcopy(module)):
        made.load_state_dict(module.state_dict(), strict=True)
        assert (made.scale, made.zero_point) == (0.1, 100)
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({"scale": torch.tensor(1.0)})


def test_softmax_without_a_dim_chooses_and_warns_as_the_float_one(codes):
    x = codes(2, 4)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        y = quantized.Softmax(scale=1 / 256)(x)
    assert torch.equal(y.int_repr(), quantized.Softmax(1, 1 / 256)(x).int_repr())
