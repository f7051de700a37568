"""``from_float`` and ``from_reference``: from observed float modules to integers, without touching the float ones."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from qfx.errors import ConfigError, QfxError
from qfx.nn import intrinsic, quantized
from qfx.nn.weights import quantize_weight

nniq, reference = intrinsic.quantized, quantized.reference
FUSED = {f"ConvReLU{d}d": (f"Conv{d}d", nn.ReLU) for d in (1, 2, 3)} | {
    "LinearReLU": ("Linear", nn.ReLU),
    "LinearTanh": ("Linear", nn.Tanh),
    "LinearLeakyReLU": ("Linear", lambda: nn.LeakyReLU(0.2)),
}
SINGLE = [f"{kind}{d}d" for kind in ("Conv", "ConvTranspose") for d in (1, 2, 3)] + ["Linear"]


def float_module(name, **more):
    if name in FUSED:
        inner, activation = FUSED[name]
        return getattr(intrinsic, name)(float_module(inner), activation())
    if name == "Linear":
        return nn.Linear(4, 8)
    return getattr(nn, name)(4, 8, 3, stride=2, padding=1, **more)


@pytest.fixture
def observe(observed):
    """Attach a qconfig whose weight observer has seen everything, and an output observer."""

    def attach(module, weight=None, output=None):
        weight = weight or observed(0.02, 0, torch.qint8)
        qconfig = SimpleNamespace(weight=lambda: weight)
        for part in module.modules():
            part.qconfig = qconfig
        module.activation_post_process = output or observed(0.125, 7)
        return module

    return attach


def new_class(name):
    return getattr(nniq if name in FUSED else quantized, name)


@pytest.mark.parametrize("name", [*SINGLE, *FUSED])
def test_from_float(observe, observed, name):
    weight_observer = observed(0.02, 0, torch.qint8)
    module = observe(float_module(name), weight_observer)
    before = copy.deepcopy(module.state_dict())
    made = new_class(name).from_float(module, engine="onednn")
    source = module[0] if name in FUSED else module
    assert type(made) is new_class(name)
    assert torch.equal(
        made.weight().int_repr(), torch.quantize_per_tensor(source.weight, 0.02, 0, torch.qint8).int_repr()
    )
    assert torch.equal(made.bias(), source.bias)
    assert not made.bias().requires_grad
    assert (made.scale, made.zero_point, made.engine) == (0.125, 7, "onednn")
    assert weight_observer.calls == 1
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    if name == "LinearLeakyReLU":
        assert made.negative_slope == 0.2


@pytest.mark.parametrize("name", SINGLE)
def test_geometry_is_taken_over(observe, name):
    if name == "Linear":
        made = quantized.Linear.from_float(observe(nn.Linear(4, 6, bias=False)))
        assert (made.in_features, made.out_features, made.bias()) == (4, 6, None)
        return
    more = {"output_padding": 1} if "Transpose" in name else {}
    made = new_class(name).from_float(observe(float_module(name, groups=2, dilation=2, bias=False, **more)))
    dims = int(name[-2])
    assert (made.stride, made.padding, made.dilation, made.groups) == ((2,) * dims, (1,) * dims, (2,) * dims, 2)
    assert made.output_padding == ((1,) * dims if more else (0,) * dims)
    assert made.bias() is None


def test_a_precomputed_weight_range_is_not_observed_again(observe, observed):
    weight_observer = observed(0.02, 0, torch.qint8)
    for name in ("Linear", "Conv2d"):
        new_class(name).from_float(observe(float_module(name), weight_observer), use_precomputed_fake_quant=True)
    assert weight_observer.calls == 0


def test_a_float_output_leaves_the_qparams_alone(observe, observed):
    made = quantized.Conv2d.from_float(observe(float_module("Conv2d"), output=observed(0.5, 1, torch.float)))
    assert (made.scale, made.zero_point) == (1.0, 0)


@pytest.mark.parametrize("name", ["Conv2d", "Linear"])
def test_qat_modules_are_folded_without_being_changed(observed, name):
    module = float_module(name)
    module.bn = nn.BatchNorm2d(8) if name == "Conv2d" else nn.BatchNorm1d(8)
    nn.init.uniform_(module.bn.weight, 0.5, 2)
    module.bn.running_mean.uniform_()
    module.bn.running_var.uniform_(0.5, 2)
    module.weight_fake_quant = observed(0.02, 0, torch.qint8)
    module.activation_post_process = observed(0.125, 7)
    before = copy.deepcopy(module.state_dict())
    made = new_class(name).from_float(module)
    factor = module.bn.weight / torch.sqrt(module.bn.running_var + module.bn.eps)
    folded = module.weight * factor.reshape(-1, *[1] * (module.weight.dim() - 1))
    assert (made.weight().dequantize() - folded).abs().max() <= 0.0101
    torch.testing.assert_close(made.bias(), (module.bias - module.bn.running_mean) * factor + module.bn.bias)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("cls", "module", "message"),
    [
        (quantized.Conv2d, lambda: nn.Conv1d(4, 4, 3), "Conv2d.from_float only works for Conv2d but got: Conv1d"),
        (nniq.ConvReLU2d, lambda: nn.Conv2d(4, 4, 3), "only works for ConvReLU2d but got: Conv2d"),
        (quantized.Linear, lambda: nn.Identity(), "Linear, NonDynamicallyQuantizableLinear, but got: Identity"),
        (
            quantized.Linear,
            lambda: nn.Linear(4, 4),
            "must have qconfig defined: .* a Linear without one",
        ),
        (quantized.ConvTranspose1d, lambda: nn.ConvTranspose1d(4, 4, 3), "must have qconfig defined"),
        (quantized.Embedding, lambda: nn.Linear(4, 4), "only works for Embedding but got: Linear"),
        (quantized.Embedding, lambda: nn.Embedding(4, 4), "Embedding input float module must have qconfig defined"),
        (quantized.QFunctional, lambda: quantized.FXFloatFunctional(), "expects an instance of FloatFunctional"),
        (quantized.Hardswish, lambda: nn.Hardswish(), "without an observer of its output"),
        (quantized.QFunctional, lambda: quantized.FloatFunctional(), "without an observer of its output"),
        (quantized.PReLU, lambda: nn.PReLU(), "without an observer"),
    ],
)
def test_modules_that_cannot_be_converted_are_refused(cls, module, message):
    with pytest.raises(AssertionError, match=message) as caught:
        cls.from_float(module())
    assert isinstance(caught.value, QfxError)


def test_weights_of_another_dtype_are_refused(observe, observed):
    with pytest.raises(ConfigError, match=r"Linear takes int8 weights; .*torch\.quint8"):
        quantized.Linear.from_float(observe(nn.Linear(4, 8), observed(0.1, 0, torch.quint8)))


def test_a_linear_layer_needs_an_output_observer(observe):
    module = observe(nn.Linear(4, 8))
    del module.activation_post_process
    with pytest.raises(AssertionError, match=r"Linear\.from_float got a Linear without an observer of its output"):
        quantized.Linear.from_float(module)


PER_TENSOR = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 0}


@pytest.mark.parametrize("name", [*SINGLE, *FUSED])
def test_from_reference(name):
    module = float_module(name)
    if name in FUSED:
        module[0] = getattr(reference, FUSED[name][0]).from_float(module[0], PER_TENSOR)
    else:
        module = getattr(reference, name).from_float(module, PER_TENSOR)
    made = new_class(name).from_reference(module, torch.tensor([0.125]), torch.tensor(7))
    source = module[0] if name in FUSED else module
    assert torch.equal(made.weight().int_repr(), source.get_quantized_weight().int_repr())
    assert torch.equal(made.bias(), source.bias)
    assert (made.scale, made.zero_point) == (0.125, 7)


def test_a_reference_with_its_batch_norm_is_refused():
    fused = intrinsic.ConvBnReLU2d(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    with pytest.raises(AssertionError, match="fold the batch norm into the Conv2d first"):
        nniq.ConvReLU2d.from_reference(fused, 0.1, 0)


def test_batch_norm_keeps_parameters_and_statistics(observed, codes):
    bn = nn.BatchNorm2d(4).eval()
    bn.running_mean.uniform_()
    bn.activation_post_process = observed([0.05], [100])
    fused = intrinsic.BNReLU2d(bn, nn.ReLU())
    fused.activation_post_process = bn.activation_post_process
    x = codes(2, 4, 5, 5)
    for made, float_result in (
        (quantized.BatchNorm2d.from_float(bn), bn(x.dequantize())),
        (nniq.BNReLU2d.from_float(fused), bn(x.dequantize()).relu()),
        (quantized.BatchNorm2d.from_reference(bn, 0.05, 100), bn(x.dequantize())),
        (nniq.BNReLU2d.from_reference(fused, torch.tensor(0.05), torch.tensor(100)), bn(x.dequantize()).relu()),
    ):
        expected = torch.quantize_per_tensor(float_result, 0.05, 100, torch.quint8)
        assert (made(x).int_repr().int() - expected.int_repr().int()).abs().max() <= 1


NORMS = {
    "LayerNorm": (lambda: nn.LayerNorm([5, 5]), (2, 4, 5, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (2, 4, 5, 5)),
    **{
        f"InstanceNorm{d}d": (lambda d=d: getattr(nn, f"InstanceNorm{d}d")(4, affine=True), (2, 4, *[5] * d))
        for d in (1, 2, 3)
    },
    "Hardswish": (nn.Hardswish, (3, 4)),
    "ELU": (lambda: nn.ELU(0.7), (3, 4)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.3), (3, 4)),
    "Sigmoid": (nn.Sigmoid, (3, 4)),
    "Softmax": (lambda: nn.Softmax(1), (3, 4)),
}


@pytest.mark.parametrize("name", NORMS)
def test_modules_without_weights_to_pack(observed, codes, name):
    make, shape = NORMS[name]
    module, x = make(), codes(*shape)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    module.activation_post_process = observed(0.05, 100)
    expected = torch.quantize_per_tensor(module(x.dequantize()), 0.05, 100, torch.quint8).int_repr().int()
    cls = getattr(quantized, name)
    for made in (cls.from_float(module), cls.from_reference(module, torch.tensor([0.05]), 100)):
        assert (made(x).int_repr().int() - expected).abs().max() <= 1


def test_stubs_slopes_and_passengers(observed, observe, codes):
    x = codes(3, 4)
    assert quantized.Dropout.from_float(nn.Dropout(0.2)).p == 0.2
    assert quantized.Dropout(0.5).train()(x) is x
    assert quantized.ReLU6.from_float(nn.ReLU6(inplace=True)).inplace
    assert quantized.ReLU6()(x).dequantize().max() <= 6
    stub = observe(nn.Identity(), output=observed([0.1], [3]))
    made = quantized.Quantize.from_float(stub)
    assert torch.equal(
        made(x.dequantize()).int_repr(), torch.quantize_per_tensor(x.dequantize(), 0.1, 3, torch.quint8).int_repr()
    )
    assert isinstance(quantized.DeQuantize.from_float(stub), quantized.DeQuantize)
    prelu = observe(nn.PReLU(4), observed(0.01, 0, torch.quint8))
    assert torch.equal(quantized.PReLU.from_float(prelu).weight.int_repr(), torch.full((4,), 25, dtype=torch.uint8))
    with pytest.warns(UserWarning, match="should have dtype quint8 but got torch.qint8"):
        quantized.PReLU.from_reference(observe(nn.PReLU(), observed(0.01, 0, torch.qint8)), 0.1, 3)


@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2])
@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_embeddings(observed, observe, name, dtype):
    more = {"mode": "sum"} if name == "EmbeddingBag" else {}
    module = getattr(nn, name)(10, 12, **more)
    scale = (module.weight.amax(1) - module.weight.amin(1)).detach() / 15
    low = -module.weight.amin(1).detach() / scale
    qparams = {"qscheme": torch.per_channel_affine_float_qparams}
    observe(module, observed(scale, low, dtype, **qparams))
    from_float = getattr(quantized, name).from_float(module)
    held = getattr(reference, name).from_float(
        module, qparams | {"dtype": dtype, "scale": scale, "zero_point": low, "axis": 0}
    )
    x = torch.tensor([[1, 2], [9, 0]])
    for made in (from_float, getattr(quantized, name).from_reference(held)):
        assert made.dtype == dtype
        # Four-bit rows keep scale and offset as half floats.
        tolerance = {"atol": 2e-3, "rtol": 0.0} if dtype == torch.quint4x2 else {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(made(x), held(x), **tolerance)
        assert (made(x) - module(x)).abs().max() < 0.5


def test_an_embedding_observer_of_another_scheme_is_refused(observe, observed):
    with pytest.raises(AssertionError, match="per_channel_affine_float_qparams, as float_qparams_weight_only_qconfig"):
        quantized.Embedding.from_float(observe(nn.Embedding(4, 4), observed(0.1, 0)))


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-127, 127), (-8, 7), (0, 127)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_stay_inside_the_range_of_the_observer(observed, low, high, per_channel):
    weight = torch.randn(8, 4)
    more = {"quant_min": low, "quant_max": high}
    if per_channel:
        more |= {"qscheme": torch.per_channel_symmetric}
        observer = observed(torch.full((8,), 0.01), torch.zeros(8, dtype=torch.long), torch.qint8, **more)
    else:
        observer = observed(0.01, 0, torch.qint8, **more)
    quantized_weight = quantize_weight(weight, observer)
    expected = torch.clamp(torch.round(weight / 0.01), low, high)
    assert torch.equal(quantized_weight.int_repr().float(), expected)
    wrapped = observed(
        0.01, 0, torch.qint8, activation_post_process=observer, calculate_qparams=observer.calculate_qparams
    )
    wrapped.qscheme = observer.qscheme
    assert torch.equal(quantize_weight(weight, wrapped).int_repr(), quantized_weight.int_repr())


def test_a_scheme_that_quantizes_no_weight_is_refused(observed):
    with pytest.raises(ConfigError, match="cannot be quantized with the scheme None"):
        quantize_weight(torch.ones(1), observed(1.0, 0, qscheme=None))


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_a_table_whose_qconfig_is_none_has_8_bits(cls):
    table = cls(10, 12) if cls is nn.Embedding else cls(10, 12, mode="sum")
    table.qconfig = None
    made = getattr(quantized, cls.__name__).from_float(table)
    assert made.dtype == torch.quint8
    step = made.weight().q_per_channel_scales().unsqueeze(1)
    assert ((made.weight().dequantize() - table.weight).abs() <= step * 0.51).all()
