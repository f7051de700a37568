"""Forwards trace under a plain fx tracer and script with TorchScript; scripts save, load and compute the same bits."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from qfx.nn import intrinsic, quantized

nniq, reference = intrinsic.quantized, quantized.reference
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

CONVS = [f"{kind}{dims}d" for kind in ("Conv", "ConvReLU", "ConvTranspose") for dims in (1, 2, 3)]
EVERYWHERE = [*CONVS, "Linear", "LinearReLU"]
PACKED = [*EVERYWHERE, "ConvAdd2d", "ConvAddReLU2d", "LinearTanh", "LinearLeakyReLU"]
TO_INT8 = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 0}
PER_CHANNEL = TO_INT8 | {
    "qscheme": torch.per_channel_affine,
    "scale": torch.full((8,), 0.02),
    "zero_point": torch.zeros(8, dtype=torch.int),
    "axis": 0,
}


def parameter(count):
    return torch.nn.Parameter(torch.rand(count) + 0.5)


OTHERS = {
    "BatchNorm2d": (lambda: quantized.BatchNorm2d(4), (2, 4, 5, 5)),
    "BatchNorm3d": (lambda: quantized.BatchNorm3d(4), (2, 4, 5, 5, 5)),
    "BNReLU2d": (lambda: nniq.BNReLU2d(4), (2, 4, 5, 5)),
    "BNReLU3d": (lambda: nniq.BNReLU3d(4), (2, 4, 5, 5, 5)),
    "ReLU6": (quantized.ReLU6, (3, 4)),
    "Hardswish": (lambda: quantized.Hardswish(0.1, 3), (3, 4)),
    "ELU": (lambda: quantized.ELU(0.1, 30, 0.7), (3, 4)),
    "LeakyReLU": (lambda: quantized.LeakyReLU(0.1, 30, 0.2), (3, 4)),
    "Sigmoid": (lambda: quantized.Sigmoid(1 / 256, 0), (3, 4)),
    "Softmax": (lambda: quantized.Softmax(1, 1 / 256, 0), (3, 4)),
    "PReLU": (lambda: quantized.PReLU(0.1, 30), (3, 4)),
    "LayerNorm": (lambda: quantized.LayerNorm([4], parameter(4), parameter(4), 0.1, 100), (3, 4)),
    "LayerNorm without parameters": (lambda: quantized.LayerNorm([4], None, None, 0.1, 100), (3, 4)),
    "GroupNorm": (lambda: quantized.GroupNorm(2, 4, parameter(4), parameter(4), 0.1, 100), (2, 4, 5, 5)),
    "InstanceNorm1d": (lambda: quantized.InstanceNorm1d(4, parameter(4), parameter(4), 0.1, 100), (2, 4, 5)),
    "InstanceNorm2d": (lambda: quantized.InstanceNorm2d(4, None, None, 0.1, 100), (2, 4, 5, 5)),
    "InstanceNorm3d": (lambda: quantized.InstanceNorm3d(4, None, None, 0.1, 100), (2, 4, 5, 5, 5)),
    "Dropout": (lambda: quantized.Dropout(0.5), (3, 4)),
    "DeQuantize": (quantized.DeQuantize, (3, 4)),
}
FLOATS = {
    "Quantize": (lambda: quantized.Quantize(0.1, 3, torch.quint8), torch.randn(3, 4)),
    "reference.Linear": (lambda: reference.Linear.from_float(torch.nn.Linear(4, 8), PER_CHANNEL), torch.randn(3, 4)),
    "reference.Embedding": (
        lambda: reference.Embedding.from_float(torch.nn.Embedding(9, 4), TO_INT8),
        torch.tensor([1, 8]),
    ),
    "reference.EmbeddingBag": (
        lambda: reference.EmbeddingBag.from_float(torch.nn.EmbeddingBag(9, 4), TO_INT8),
        torch.tensor([[1, 8], [2, 2]]),
    ),
    "Embedding": (lambda: quantized.Embedding(9, 4), torch.tensor([1, 8])),
    "EmbeddingBag": (lambda: quantized.EmbeddingBag(9, 4), torch.tensor([[1, 8], [2, 2]])),
}
for _dims in (1, 2, 3):
    for _kind in ("Conv", "ConvTranspose"):
        for _extra in ({}, {"is_decomposed": True}):
            _float = getattr(torch.nn, f"{_kind}{_dims}d")
            FLOATS[f"reference.{_kind}{_dims}d {_extra}"] = (
                lambda f=_float, extra=_extra: getattr(reference, f.__name__).from_float(f(4, 8, 3), TO_INT8 | extra),
                torch.randn(2, 4, *[5] * _dims),
            )


def same(found, expected):
    if not expected.is_quantized:
        return torch.equal(found, expected)
    return torch.equal(found.int_repr(), expected.int_repr()) and found.q_scale() == expected.q_scale()


def scripted_and_loaded(module):
    script = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return script, copy.deepcopy(script), torch.jit.load(file)


class Outer(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class OuterOfTwo(Outer):
    def forward(self, x, extra):
        return self.inner(x, extra)


def traced(module, count):
    return torch.fx.symbolic_trace((OuterOfTwo if count == 2 else Outer)(module))


@pytest.mark.parametrize(
    ("name", "engine"), [*((name, "onednn") for name in PACKED), *((name, "fbgemm") for name in EVERYWHERE)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_modules(ready, inputs, name, bias, engine):
    torch.backends.quantized.engine = engine
    module, x = ready(name, bias=bias), inputs(name)
    for made in (*scripted_and_loaded(module), traced(module, len(x)), torch.jit.trace(module, x)):
        assert same(made(*x), module(*x))


def test_a_packed_module_traces_to_its_operator_and_a_packed_attribute(ready):
    graph = traced(ready("Conv2d"), 1).graph
    assert [(node.op, node.target) for node in graph.nodes] == [
        ("placeholder", "x"),
        ("get_attr", "inner._packed_params"),
        ("call_function", torch.ops.quantized.conv2d),
        ("output", "output"),
    ]


def test_reflection_padding_scripts_and_traces(ready, inputs):
    module, x = ready("Conv2d", padding_mode="reflect"), inputs("Conv2d")
    for made in (*scripted_and_loaded(module), traced(module, 1)):
        assert same(made(*x), module(*x))


def test_a_loaded_script_packs_its_int8_weight_for_the_engine_selected_then(ready, inputs):
    module, x = ready("Conv2d", engine="onednn"), inputs("Conv2d")
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    for engine in ("fbgemm", "x86", "onednn"):
        torch.backends.quantized.engine = engine
        file.seek(0)
        assert same(torch.jit.load(file)(*x), module(*x))


def test_a_script_says_when_the_rank_is_wrong(ready, inputs):
    script, (x,) = torch.jit.script(ready("Conv2d")), inputs("Conv2d")
    with pytest.raises(torch.jit.Error, match="Input shape must be"):
        script(x[0])


def test_weights_of_a_script_can_be_replaced(ready, int8, inputs):
    script, other, (x,) = torch.jit.script(ready("Linear")), ready("Linear"), inputs("Linear")
    script._packed_params.set_weight_bias(*other._weight_bias())
    assert same(script(x), other(x))
    weight, bias = script._packed_params._weight_bias()
    assert torch.equal(weight.int_repr(), other.weight().int_repr())
    assert torch.equal(bias, other.bias())


@pytest.mark.parametrize("name", OTHERS)
def test_modules_on_quantized_inputs(codes, name):
    make, shape = OTHERS[name]
    module, x = make().eval(), codes(*shape)
    for made in (*scripted_and_loaded(module), traced(module, 1)):
        assert same(made(x), module(x))


@pytest.mark.parametrize("name", FLOATS)
def test_modules_on_float_and_index_inputs(name):
    make, x = FLOATS[name]
    module = make()
    for made in (*scripted_and_loaded(module), traced(module, 1)):
        assert same(made(x), module(x))


def test_functional_modules_trace_and_script(codes):
    class Residual(torch.nn.Module):
        def __init__(self, functional):
            super().__init__()
            self.functional = functional

        def forward(self, x):
            return self.functional.cat([self.functional.add_relu(x, x), self.functional.mul_scalar(x, 2.0)], dim=1)

    for functional, x in (
        (quantized.QFunctional(), codes(2, 4)),
        (quantized.FloatFunctional(), torch.randn(2, 4)),
        (quantized.FXFloatFunctional(), torch.randn(2, 4)),
    ):
        module = Residual(functional)
        for made in (torch.jit.script(module), torch.fx.symbolic_trace(module)):
            assert same(made(x), module(x))


def test_fused_float_modules_script_and_trace():
    module = torch.nn.Sequential(
        intrinsic.ConvReLU2d(torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU()), torch.nn.Flatten(), torch.nn.Linear(72, 2)
    )
    x = torch.randn(1, 4, 5, 5)
    for made in (torch.jit.script(module), torch.fx.symbolic_trace(module)):
        assert torch.equal(made(x), module(x))


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_a_scripted_up_convolution_packs_around_the_kernel_that_is_wrong(int8, codes, engine):
    module = quantized.ConvTranspose2d(8, 8, 2, 2, engine=engine)
    module.set_weight_bias(int8(8, 8, 2, 2), torch.randn(8))
    module.scale, module.zero_point = 0.11, 60
    x = codes(2, 8, 5, 5)
    torch.backends.quantized.engine = engine
    for script in scripted_and_loaded(module):
        assert same(script(x), module(x))
