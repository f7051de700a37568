"""Linear layers on weights with blocks of zeros: what they compute, keep, refuse."""

from __future__ import annotations

import copy
import io
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx.config import default_dynamic_qconfig, float16_dynamic_qconfig
from qfx.errors import KernelError
from qfx.kernels.packing import packed_by
from qfx.nn.errors import InputError, ModuleTypeError, UnsupportedError, WeightTypeError
from qfx.nn.sparse import quantized

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
ENGINE = {quantized.Linear: "fbgemm", quantized.dynamic.Linear: "qnnpack"}


def weight(axis=None):
    values = torch.randn(8, 16)
    values[:, 4:12] = 0
    if axis is None:
        return torch.quantize_per_tensor(values, 0.02, 0, torch.qint8)
    scales = torch.linspace(0.01, 0.03, 8, dtype=torch.double)
    return torch.quantize_per_channel(values, scales, torch.zeros(8, dtype=torch.long), 0, torch.qint8)


def filled(cls, axis=None, bias=True):
    module = cls(16, 8, 1, 4)
    module.set_weight_bias(weight(axis), torch.randn(8) if bias else None, 1, 4)
    if cls is quantized.Linear:
        module.scale, module.zero_point = 0.1, 128
    return module


def x_for(cls):
    x = torch.randn(3, 16)
    return torch.quantize_per_tensor(x, 0.03, 128, torch.quint8) if cls is quantized.Linear else x


def floats(tensor):
    return tensor.dequantize() if tensor.is_quantized else tensor


@pytest.mark.parametrize("cls", ENGINE)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("selected", ["x86", "onednn"])
def test_close_to_float_and_the_same_in_every_form_under_any_setting(cls, axis, bias, selected):
    torch.backends.quantized.engine = selected
    module, x = filled(cls, axis, bias), x_for(cls)
    y = module(x)
    expected = F.linear(floats(x), module.weight().dequantize(), module.bias())
    assert (floats(y) - expected).abs().max() < 0.3
    blank = cls(16, 8, 1, 4, bias)
    blank.load_state_dict(module.state_dict(), strict=True)
    for one in (blank, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(floats(one(x)), floats(y))
        assert repr(one) == repr(module)
    with packed_by(ENGINE[cls]):
        script = torch.jit.script(module)
        file = io.BytesIO()
        torch.jit.save(script, file)
        file.seek(0)
        for one in (script, torch.jit.load(file), torch.fx.symbolic_trace(nn.Sequential(module))):
            assert torch.equal(floats(one(x)), floats(y))


@pytest.mark.parametrize("cls", ENGINE)
def test_the_state_dict_has_the_originals_layout(cls):
    state = filled(cls).state_dict()
    own = ["scale", "zero_point"] if cls is quantized.Linear else ["op_type"]
    assert list(state) == [*own, "_packed_params.dtype", "_packed_params._packed_params"]
    assert state._metadata[""] == {"version": 1}
    assert state["_packed_params._packed_params"][2:] == (1, 4)
    with pytest.raises(RuntimeError, match=r"size mismatch for _packed_params\._packed_params"):
        cls(16, 9, 1, 4).load_state_dict(state)


def test_weights_of_a_script_can_be_replaced():
    module, other, x = filled(quantized.Linear), filled(quantized.Linear), x_for(quantized.Linear)
    with packed_by("fbgemm"):
        script = torch.jit.script(module)
        script._packed_params.set_weight_bias(other.weight(), other.bias(), 1, 4)
    assert torch.equal(script(x).int_repr(), other(x).int_repr())


def sparse_float(observed, **more):
    module = nn.Linear(16, 8)
    with torch.no_grad():
        module.weight[:, 4:12] = 0
    module.qconfig = SimpleNamespace(weight=lambda: observed(0.01, 0, torch.qint8))
    module.activation_post_process = observed(0.125, 128)
    module.sparse_params = {"sparse_block_shape": (1, 4)}
    module.__dict__.update(more)
    return module


def test_from_float(observed):
    module = sparse_float(observed)
    expected = torch.quantize_per_tensor(module.weight, 0.01, 0, torch.qint8)
    static = quantized.Linear.from_float(module)
    dynamic = quantized.dynamic.Linear.from_float(module)
    for made in (static, dynamic):
        assert torch.equal(made.weight().int_repr(), expected.int_repr())
        assert torch.equal(made.bias(), module.bias)
        assert made._weight_bias()[2:] == (1, 4)
    assert (static.scale, static.zero_point) == (0.125, 128)
    mask = torch.ones(8, 16)
    mask[3] = 0
    module.qconfig.mask = mask
    with quantized.LinearBlockSparsePattern(8, 1):
        masked = quantized.dynamic.Linear.from_float(module)
    assert masked._weight_bias()[2:] == (8, 1)
    assert masked.weight().int_repr()[3].count_nonzero() == 0


def test_without_a_qconfig_for_it_the_weight_is_int8():
    module = nn.Linear(16, 8)
    module.qconfig = None
    assert quantized.dynamic.Linear.from_float(module).weight().qscheme() == torch.per_tensor_affine
    module.qconfig = default_dynamic_qconfig
    assert quantized.dynamic.Linear.from_float(module).weight().dtype == torch.qint8


def test_what_is_refused(observed):
    for cls in ENGINE:
        with pytest.raises(UnsupportedError, match=r"stores torch\.qint8, not torch\.float16"):
            cls(16, 8, 1, 4, dtype=torch.float16)
        with pytest.raises(ModuleTypeError, match="only works for Linear but got: Identity"):
            cls.from_float(nn.Identity())
        with pytest.raises(InputError, match="block sizes must not be None"):
            filled(cls).set_weight_bias(weight(), None, None, 4)
        shifted = sparse_float(observed)
        shifted.qconfig = SimpleNamespace(weight=lambda: observed(0.01, 3, torch.qint8))
        with pytest.raises(AssertionError, match="zero points must be 0; use a symmetric scheme"):
            cls.from_float(shifted)
    with pytest.raises(KernelError, match="engine 'fbgemm' cannot pack this linear_sparse"):
        quantized.Linear(16, 8, 8, 1)
    with pytest.raises(ModuleTypeError, match=r"two sizes on the Linear, got None; .*squash_mask"):
        quantized.Linear.from_float(sparse_float(observed, sparse_params={}))
    half = sparse_float(observed)
    half.qconfig = float16_dynamic_qconfig
    with pytest.raises(WeightTypeError, match=r"stores torch\.qint8; .*torch\.float16"):
        quantized.dynamic.Linear.from_float(half)
    with pytest.raises(AssertionError, match="no kernel takes blocks of 2 rows and 2 columns"):
        quantized.LinearBlockSparsePattern(2, 2)


def test_block_patterns_nest():
    pattern = quantized.LinearBlockSparsePattern
    with pattern(8, 1):
        with pattern(1, 4):
            assert pattern.block_size() == (1, 4)
        assert pattern.block_size() == (8, 1)
    assert pattern.block_size() == (1, 4)


def test_representations():
    assert repr(quantized.Linear(16, 8, 1, 4)) == (
        "SparseQuantizedLinear(in_features=16, out_features=8, scale=1.0, zero_point=0, "
        "qscheme=torch.per_tensor_affine)"
    )
    assert repr(quantized.dynamic.Linear(16, 8, 1, 4)) == (
        "SparseQuantizedDynamicLinear(in_features=16, out_features=8, qscheme=torch.per_tensor_affine)"
    )
