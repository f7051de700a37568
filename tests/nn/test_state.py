"""Copies, pickles and state dicts compute the same bits, whatever engine torch has selected when they are made."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import subprocess
import sys
import warnings

import pytest
import torch

from qfx.kernels import packing
from qfx.kernels.packing import ENGINES
from qfx.nn import intrinsic, quantized

nniq = intrinsic.quantized

CONVS = [f"{kind}{dims}d" for kind in ("Conv", "ConvReLU", "ConvTranspose") for dims in (1, 2, 3)]
EVERYWHERE = [*CONVS, "Linear", "LinearReLU"]
ONEDNN_ONLY = ["ConvAdd2d", "ConvAddReLU2d", "LinearTanh", "LinearLeakyReLU"]


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


REMAKE = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "save": saved,
}


def combinations():
    for name, engine in itertools.product(EVERYWHERE, ENGINES):
        if (name, engine) != ("ConvTranspose3d", "qnnpack"):
            yield name, engine
    yield from ((name, "onednn") for name in ONEDNN_ONLY)


@pytest.mark.parametrize(("name", "engine"), [*combinations()])
@pytest.mark.parametrize("elsewhere", ["fbgemm", "onednn", "qnnpack"])
def test_copies_pack_for_their_own_engine(ready, inputs, name, engine, elsewhere):
    module, x = ready(name, engine=engine), inputs(name)
    y = module(*x)
    torch.backends.quantized.engine = elsewhere
    for how, remake in REMAKE.items():
        made = remake(module)
        assert torch.equal(made(*x).int_repr(), y.int_repr()), how
        assert made is not module
        assert type(made) is type(module)
        assert repr(made) == repr(module)
    assert torch.backends.quantized.engine == elsewhere


@pytest.mark.parametrize("name", EVERYWHERE)
def test_without_a_given_engine_the_one_of_the_last_packing_stays(ready, inputs, name):
    torch.backends.quantized.engine = "fbgemm"
    module, x = ready(name), inputs(name)
    y = module(*x)
    torch.backends.quantized.engine = "qnnpack"
    assert copy.deepcopy(module).engine == "fbgemm"
    assert torch.equal(copy.deepcopy(module)(*x).int_repr(), y.int_repr())
    if name != "ConvTranspose3d":
        module.set_weight_bias(*module._weight_bias())
        assert module.engine == "qnnpack"


def test_a_given_engine_survives_new_weights(ready, int8):
    module = ready("Conv2d", engine="onednn")
    torch.backends.quantized.engine = "fbgemm"
    module.set_weight_bias(int8(8, 4, 3, 3), None)
    assert module.engine == "onednn"
    assert module.bias() is None


def test_a_machine_without_the_engine_computes_the_same_by_another(ready, inputs, monkeypatch):
    module, x = ready("Conv2d", engine="fbgemm"), inputs("Conv2d")
    monkeypatch.setattr(packing, "supported_engines", lambda: ["onednn", "qnnpack"])
    with pytest.warns(UserWarning, match="no engine 'fbgemm'; packed by 'onednn'"):
        made = copy.deepcopy(module)
    assert torch.equal(made(*x).int_repr(), module(*x).int_repr())
    assert made.engine == "fbgemm"  # so that it goes back where it can


@pytest.mark.parametrize("name", [*EVERYWHERE, *ONEDNN_ONLY])
@pytest.mark.parametrize("bias", [True, False])
def test_state_dicts_load_strictly_and_keep_the_modules_engine(ready, inputs, name, bias):
    module, x = ready(name, bias=bias, engine="onednn"), inputs(name)
    state = module.state_dict()
    other = ready(name, bias=bias, engine="onednn")
    other.set_weight_bias(module.weight().clone(), None)
    torch.backends.quantized.engine = "qnnpack"
    other.load_state_dict(state, strict=True)
    assert other.engine == "onednn"
    assert torch.equal(other(*x).int_repr(), module(*x).int_repr())
    assert (other.scale, other.zero_point) == (module.scale, module.zero_point)


def test_state_dict_layouts(ready):
    conv, linear = ready("Conv2d"), ready("Linear")
    assert list(conv.state_dict()) == ["weight", "bias", "scale", "zero_point"]
    assert list(linear.state_dict()) == ["scale", "zero_point", "_packed_params.dtype", "_packed_params._packed_params"]
    assert conv.state_dict()._metadata[""] == {"version": 1}
    assert {key: value["version"] for key, value in linear.state_dict()._metadata.items()} == {
        "": 3,
        "_packed_params": 3,
    }


@pytest.mark.parametrize("version", [1, 2])
def test_older_linear_states_load(ready, inputs, version):
    source, target = ready("Linear", engine="fbgemm"), quantized.Linear(4, 8, engine="fbgemm")
    prefix = "" if version == 1 else "_packed_params."
    state = {
        f"{prefix}weight": source.weight(),
        f"{prefix}bias": source.bias(),
        "scale": torch.tensor(0.11),
        "zero_point": 60,
    }
    if version == 2:
        state["_packed_params.dtype"] = torch.qint8
    dict_with_metadata = torch.nn.Module().state_dict()
    dict_with_metadata.update(state)
    dict_with_metadata._metadata = {"": {"version": version}, "_packed_params": {"version": version}}
    target.load_state_dict(dict_with_metadata)
    (x,) = inputs("Linear")
    assert torch.equal(target(x).int_repr(), source(x).int_repr())


def test_a_state_dict_that_lost_its_metadata_loads(ready, inputs):
    module, x = ready("Linear"), inputs("Linear")
    other = quantized.Linear(4, 8)
    other.load_state_dict({key: value for key, value in module.state_dict().items() if key})
    assert torch.equal(other(*x).int_repr(), module(*x).int_repr())


@pytest.mark.parametrize("name", ["Conv2d", "Linear"])
def test_what_does_not_fit_is_said_and_not_loaded(ready, inputs, name):
    module, x = ready(name), inputs(name)
    y = module(*x)
    state = module.state_dict()
    partial = {key: value for key, value in state.items() if key != "scale"}
    with pytest.raises(RuntimeError, match=r'Missing key.*"scale"'):
        module.load_state_dict(partial)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"stranger"'):
        module.load_state_dict(state | {"stranger": torch.ones(1)})
    wider = (quantized.Conv2d(4, 16, 3) if name == "Conv2d" else quantized.Linear(4, 16)).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch.*16, 4.*this module"):
        module.load_state_dict({**wider, "scale": state["scale"], "zero_point": state["zero_point"]})
    assert torch.equal(module(*x).int_repr(), y.int_repr())


def test_the_module_does_not_share_the_bias_it_was_given(ready, inputs):
    module, bias, (x,) = ready("Linear"), torch.randn(8), inputs("Linear")
    module.set_weight_bias(module.weight(), bias)
    y = module(x).int_repr()
    bias.add_(100)
    assert torch.equal(copy.deepcopy(module)(x).int_repr(), y)


def test_hooks_qconfigs_and_modes_are_copied(ready):
    module = ready("Conv2d").eval()
    module.qconfig = "kept"
    module.register_forward_hook(print)
    made = copy.deepcopy(module)
    assert (made.qconfig, made.training, len(made._forward_hooks)) == ("kept", False, 1)


def test_copies_of_one_model_stay_tied(ready):
    shared = ready("Linear")
    model = torch.nn.ModuleList([shared, shared])
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made[0] is made[1]


def test_half_float_weights_keep_what_half_floats_can_say():
    params = quantized.LinearPackedParams(torch.float16)
    weight = torch.randn(8, 4)
    params.set_weight_bias(weight, None)
    assert torch.equal(params._weight_bias()[0], weight.half().float())
    x, kernel = torch.randn(3, 4), torch.ops.quantized.linear_dynamic_fp16
    assert torch.equal(kernel(x, params._packed_params), kernel(x, copy.deepcopy(params)._packed_params))


SILENT = """
import copy, pathlib, pickle, sys, warnings
warnings.simplefilter("error")
module = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
made = pickle.loads(pickle.dumps(copy.deepcopy(module)))
print(type(made).__name__)
"""


def test_a_fresh_process_loads_and_copies_without_a_warning(ready, tmp_path):
    path = tmp_path / "module.pickle"
    path.write_bytes(pickle.dumps(torch.nn.Sequential(ready("Conv2d"), ready("Linear"))))
    done = subprocess.run([sys.executable, "-c", SILENT, str(path)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("Sequential", "")


UNPACKED = {
    "BatchNorm2d": lambda: (quantized.BatchNorm2d(4), torch.rand(1, 4, 3, 3)),
    "BNReLU3d": lambda: (nniq.BNReLU3d(4), torch.rand(1, 4, 3, 3, 3)),
    "Hardswish": lambda: (quantized.Hardswish(0.1, 3), torch.rand(4)),
    "LayerNorm": lambda: (quantized.LayerNorm([4], None, None, 0.1, 3), torch.rand(2, 4)),
    "PReLU": lambda: (quantized.PReLU(0.1, 3), torch.rand(2, 4)),
}


@pytest.mark.parametrize("name", UNPACKED)
def test_modules_without_packed_weights_copy_and_load(name):
    module, x = UNPACKED[name]()
    x = torch.quantize_per_tensor(x, 0.02, 10, torch.quint8)
    for remake in REMAKE.values():
        made = remake(module)
        made.load_state_dict(module.state_dict(), strict=True)
        assert torch.equal(made(x).int_repr(), module(x).int_repr())


SAVED = {
    "ELU": (lambda: quantized.ELU(0.1, 3), ("scale", "zero_point")),
    "Sigmoid": (lambda: quantized.Sigmoid(0.1, 3), ("output_scale", "output_zero_point")),
    "Softmax": (lambda: quantized.Softmax(1, 0.1, 3), ("scale", "zero_point")),
    "PReLU": (lambda: quantized.PReLU(0.1, 3), ("scale", "zero_point", "weight")),
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, (_, keys) in SAVED.items() for key in keys])
def test_a_saved_number_that_is_gone_is_a_missing_key_unless_the_state_is_the_originals(name, key):
    module = SAVED[name][0]()
    state = module.state_dict()
    del state[key]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
        module.load_state_dict(state, strict=True)
    state._metadata[""]["version"] = 1
    module.load_state_dict(state, strict=True)


def test_slopes_of_another_number_are_refused():
    module = quantized.PReLU(0.1, 3)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        module.load_state_dict(quantized.PReLU(0.1, 3, 4).state_dict())
    assert module.weight.shape == (1,)


@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2])
@pytest.mark.parametrize("cls", [quantized.Embedding, quantized.EmbeddingBag])
def test_embeddings_copy_and_load(cls, dtype):
    table = torch.quantize_per_channel(torch.randn(10, 12), torch.rand(10) * 0.2 + 0.1, torch.rand(10) * 3, 0, dtype)
    module, x = cls(10, 12, _weight=table, dtype=dtype), torch.tensor([[1, 2], [5, 9]])
    loaded = cls(10, 12, dtype=dtype)
    loaded.load_state_dict(module.state_dict(), strict=True)
    for made in (loaded, *(remake(module) for remake in REMAKE.values())):
        assert torch.equal(made(x), module(x))
    assert list(module.state_dict()) == ["_packed_params.dtype", "_packed_params._packed_weight"]


def test_loading_into_a_table_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match=r"size mismatch for _packed_params\._packed_weight"):
        quantized.Embedding(10, 12).load_state_dict(quantized.Embedding(9, 12).state_dict())


def test_no_warning_reaches_the_user_from_copies(ready):
    module = ready("Conv2d")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy.deepcopy(module)
