"""The dynamically quantized linear layer, with and without a relu: what it computes, keeps, refuses."""

from __future__ import annotations

import copy
import io
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx.config import (
    default_dynamic_qat_qconfig,
    default_dynamic_qconfig,
    float16_dynamic_qconfig,
    per_channel_dynamic_qconfig,
)
from qfx.nn import intrinsic, qat, quantized
from qfx.nn.errors import ModuleTypeError, WeightTypeError

nnqd, nniqd, reference = quantized.dynamic, intrinsic.quantized.dynamic, quantized.reference
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

CLASSES = [nnqd.Linear, nniqd.LinearReLU]
ENGINES = ["fbgemm", "x86", "onednn", "qnnpack"]
INT8 = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 0}
HALF = {"qscheme": torch.per_tensor_affine, "dtype": torch.float16}


def filled(cls, int8, dtype=torch.qint8, bias=True, axis=None, engine=None):
    module = cls(4, 8, bias, dtype, engine=engine)
    weight = int8(8, 4, axis=axis) if dtype == torch.qint8 else torch.randn(8, 4)
    module.set_weight_bias(weight, torch.randn(8) if bias else None)
    return module


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bias", [True, False])
def test_close_to_float_and_the_same_in_every_form(int8, cls, engine, axis, bias):
    torch.backends.quantized.engine = engine
    module, x = filled(cls, int8, bias=bias, axis=axis), torch.randn(5, 3, 4)
    y = module(x)
    expected = F.linear(x, module.weight().dequantize(), module.bias())
    expected = expected.relu() if cls is nniqd.LinearReLU else expected
    # Half a step of the 7-bit input for each of four weights.
    assert (y - expected).abs().max() <= 4 * 2.6 * float(x.max() - x.min()) / 127 / 2
    script = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    traced = torch.fx.symbolic_trace(nn.Sequential(module))
    forms = [script, torch.jit.load(file), traced, copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for made in (*forms, saved(module), copy.copy(module)):
        assert torch.equal(made(x), y)


@pytest.mark.parametrize("cls", CLASSES)
def test_half_float_weights(int8, cls):
    module, x = filled(cls, int8, torch.float16), torch.randn(5, 4)
    expected = F.linear(x, module.weight(), module.bias())
    torch.testing.assert_close(module(x), expected.relu() if cls is nniqd.LinearReLU else expected)
    assert module.weight().dtype == torch.float32
    loaded = cls(4, 8, dtype=torch.float16)
    loaded.load_state_dict(module.state_dict())
    for made in (loaded, copy.deepcopy(module), torch.jit.script(module), saved(module)):
        assert torch.equal(made(x), module(x))


@pytest.mark.parametrize("selected", ["fbgemm", "qnnpack"])
def test_copies_pack_for_their_own_engine(int8, selected):
    module, x = filled(nnqd.Linear, int8, engine="fbgemm"), torch.randn(3, 4)
    y = module(x)
    torch.backends.quantized.engine = selected
    for made in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), saved(module)):
        assert made.engine == "fbgemm"
        assert torch.equal(made(x), y)


def test_the_state_dict_has_the_originals_layout(int8):
    module = filled(nnqd.Linear, int8)
    state = module.state_dict()
    assert list(state) == ["scale", "zero_point", "_packed_params.dtype", "_packed_params._packed_params"]
    assert {key: value["version"] for key, value in state._metadata.items()} == {"": 4, "_packed_params": 3}
    made, x = nnqd.Linear(4, 8), torch.randn(3, 4)
    made.load_state_dict(state, strict=True)
    assert torch.equal(made(x), module(x))
    assert dir(made) == dir(module)  # with what is there twice


def test_a_state_before_version_4_keeps_8_bits_through_any_number_of_state_dicts(int8):
    module, made, x = filled(nnqd.Linear, int8, engine="fbgemm"), nnqd.Linear(4, 8, engine="fbgemm"), torch.randn(9, 4)
    state = module.state_dict()
    state._metadata[""]["version"] = 3
    made.load_state_dict(state)
    expected = torch.ops.quantized.linear_dynamic(x, made._packed_params._packed_params, reduce_range=False)
    assert made.version == 3
    assert torch.equal(made(x), expected)
    assert not torch.equal(made(x), module(x))
    again = nnqd.Linear(4, 8, engine="fbgemm")
    again.load_state_dict(made.state_dict())
    for one in (again, copy.deepcopy(made), torch.jit.script(made)):
        assert torch.equal(one(x), expected)
    made.load_state_dict(module.state_dict())
    assert torch.equal(made(x), module(x))
    assert made.state_dict()._metadata[""]["version"] == 4


def test_double_inputs_are_refused_by_the_kernel_and_float_ones_keep_their_dtype(int8):
    assert filled(nnqd.Linear, int8)(torch.randn(2, 4)).dtype == torch.float32
    with pytest.raises(RuntimeError):
        filled(nnqd.Linear, int8)(torch.randn(2, 4, dtype=torch.double))


def with_qconfig(module, qconfig):
    for part in module.modules():
        part.qconfig = qconfig
    return module


def float_module(cls):
    return intrinsic.LinearReLU(nn.Linear(4, 8), nn.ReLU()) if cls is nniqd.LinearReLU else nn.Linear(4, 8)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("qconfig", "dtype", "scheme"),
    [
        (default_dynamic_qconfig, torch.qint8, torch.per_tensor_affine),
        (per_channel_dynamic_qconfig, torch.qint8, torch.per_channel_affine),
        (None, torch.qint8, torch.per_tensor_affine),
        (float16_dynamic_qconfig, torch.float16, None),
    ],
)
def test_from_float(cls, qconfig, dtype, scheme):
    module = with_qconfig(float_module(cls), qconfig)
    linear = module[0] if cls is nniqd.LinearReLU else module
    made = cls.from_float(module, engine="fbgemm")
    assert (type(made), made.engine, made._packed_params.dtype) == (cls, "fbgemm", dtype)
    weight = made.weight()
    assert torch.equal(made.bias(), linear.bias)
    if scheme is None:
        assert torch.equal(weight, linear.weight.half().float())
    else:
        assert weight.qscheme() == scheme
        assert (weight.dequantize() - linear.weight).abs().max() <= 0.6 * linear.weight.abs().max() / 127


def test_from_float_of_a_module_for_training():
    module = qat.dynamic.Linear(4, 8, qconfig=default_dynamic_qat_qconfig)
    made = nnqd.Linear.from_float(module)
    assert torch.equal(made.weight().dequantize(), module.weight_fake_quant(module.weight))


@pytest.mark.parametrize("qparams", [INT8, HALF])
@pytest.mark.parametrize("cls", CLASSES)
def test_from_reference(cls, qparams):
    module = float_module(cls)
    if cls is nniqd.LinearReLU:
        module[0] = held = reference.Linear.from_float(module[0], qparams)
    else:
        module = held = reference.Linear.from_float(module, qparams)
    made, x = cls.from_reference(module), torch.randn(3, 4)
    weight = made.weight()
    assert torch.equal(weight.dequantize() if weight.is_quantized else weight, held.get_weight())
    torch.testing.assert_close(made(x), module(x), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("cls", "module", "error", "message"),
    [
        (
            nnqd.Linear,
            lambda: nn.Conv1d(1, 1, 1),
            ModuleTypeError,
            "nn.quantized.dynamic.Linear.from_float only works for Linear, .*, but got: Conv1d",
        ),
        (
            nnqd.Linear,
            lambda: nn.Linear(4, 8),
            ModuleTypeError,
            "a Linear without one; set one, or None",
        ),
        # The relu would be lost.
        (
            nnqd.Linear,
            lambda: with_qconfig(float_module(nniqd.LinearReLU), default_dynamic_qconfig),
            AssertionError,
            "only works for .* but got: LinearReLU",
        ),
        (nniqd.LinearReLU, lambda: with_qconfig(nn.Linear(4, 8), None), ModuleTypeError, "only works for LinearReLU"),
    ],
)
def test_modules_that_cannot_be_converted_are_refused(cls, module, error, message):
    with pytest.raises(error, match=message):
        cls.from_float(module())


def test_weights_of_another_dtype_are_refused(observed):
    qconfig = SimpleNamespace(weight=lambda: observed(0.1, 0, torch.quint8))
    with pytest.raises(WeightTypeError, match=r"stores torch\.qint8 or torch\.float16; .*torch\.quint8"):
        nnqd.Linear.from_float(with_qconfig(nn.Linear(4, 8), qconfig))


def test_representations(int8):
    assert repr(filled(nnqd.Linear, int8)) == (
        "DynamicQuantizedLinear(in_features=4, out_features=8, dtype=torch.qint8, qscheme=torch.per_tensor_affine)"
    )
    assert repr(filled(nniqd.LinearReLU, int8, torch.float16)) == (
        "DynamicQuantizedLinearReLU(in_features=4, out_features=8, dtype=torch.float16)"
    )
