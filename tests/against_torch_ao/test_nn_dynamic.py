"""``qfx.nn.quantized.dynamic`` beside the original's: same signatures, same bits, state dicts that load."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from qfx.nn import intrinsic, quantized

ao_dynamic = pytest.importorskip("torch.ao.nn.quantized.dynamic")
ao_fused = pytest.importorskip("torch.ao.nn.intrinsic.quantized.dynamic")
ao_qconfig = pytest.importorskip("torch.ao.quantization.qconfig")

FAMILIES = {
    "quantized.dynamic": (quantized.dynamic, ao_dynamic),
    "intrinsic.quantized.dynamic": (intrinsic.quantized.dynamic, ao_fused),
}
EVERY_NAME = [(family, name) for family, (_, theirs) in FAMILIES.items() for name in theirs.modules.__all__]
CONVS = [f"{kind}{d}d" for kind in ("Conv", "ConvTranspose") for d in (1, 2, 3)]
LINEARS = [("quantized.dynamic", "Linear"), ("intrinsic.quantized.dynamic", "LinearReLU")]
ENGINES = ["fbgemm", "x86", "onednn", "qnnpack"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:The current implementation:UserWarning"),
    pytest.mark.filterwarnings("ignore:Currently, qnnpack incorrectly ignores:UserWarning"),
]


@pytest.mark.parametrize(("family", "name"), EVERY_NAME)
def test_constructors_and_converters_have_the_originals_parameters_then_keywords_of_their_own(family, name):
    ours, theirs = (getattr(module, name) for module in FAMILIES[family])
    for method in ("__init__", "from_float", "from_reference"):
        if not hasattr(theirs, method):
            continue
        original = list(inspect.signature(getattr(theirs, method)).parameters.values())
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in original):
            continue  # which ones they are is the base class's business
        own = list(inspect.signature(getattr(ours, method)).parameters.values())
        assert [p.default for p in own[: len(original)]] == [p.default for p in original]
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in own[len(original) :])
        if method != "from_reference":
            assert [p.name for p in own[: len(original)]] == [p.name for p in original]


def int8(*shape, axis=None):
    if axis is None:
        return torch.quantize_per_tensor(torch.randn(*shape), 0.02, 0, torch.qint8)
    count = shape[axis]
    zeros = torch.zeros(count, dtype=torch.long)
    return torch.quantize_per_channel(torch.randn(*shape), torch.rand(count) * 0.02 + 0.01, zeros, axis, torch.qint8)


@pytest.mark.parametrize(("family", "name"), LINEARS)
@pytest.mark.parametrize(
    ("engine", "shape"),
    # onednn raises on empty batches.
    [(e, s) for e in ENGINES for s in ((1, 24), (7, 24), (2, 5, 24), (0, 24)) if (e, s) != ("onednn", (0, 24))],
)
@pytest.mark.parametrize("axis", [None, 0])
def test_linear_layers_compute_the_same_bits(family, name, engine, axis, shape):
    torch.backends.quantized.engine = engine
    ours, theirs = (getattr(module, name)(24, 9) for module in FAMILIES[family])
    weight, bias = int8(9, 24, axis=axis), torch.randn(9)
    for module in (ours, theirs):
        module.set_weight_bias(weight, bias)
    x = torch.randn(shape)
    assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(("family", "name"), LINEARS)
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_linear_layers_load_each_others_states(family, name, dtype):
    cls, original = (getattr(module, name) for module in FAMILIES[family])
    ours, theirs, x = cls(4, 8, dtype=dtype), original(4, 8, dtype=dtype), torch.randn(3, 4)
    ours.set_weight_bias(int8(8, 4) if dtype == torch.qint8 else torch.randn(8, 4), torch.randn(8))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(theirs(x), ours(x))
    assert repr(ours) == repr(theirs)
    blank = cls(4, 8, dtype=dtype)
    blank.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(blank(x), ours(x))


@pytest.mark.parametrize(
    "qconfig", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig", None]
)
def test_linear_layers_are_made_alike_from_float(qconfig):
    module, x = nn.Linear(4, 8), torch.randn(3, 4)
    module.qconfig = qconfig and getattr(ao_qconfig, qconfig)
    ours, theirs = (family.Linear.from_float(module) for family in (quantized.dynamic, ao_dynamic))
    assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduce_range", [True, False])
def test_convolutions_compute_the_same_bits(name, engine, reduce_range):
    if (name, engine) == ("ConvTranspose3d", "qnnpack"):
        with pytest.raises(RuntimeError, match="gives wrong numbers"):
            quantized.dynamic.ConvTranspose3d(4, 8, 3, engine=engine)
        return
    torch.backends.quantized.engine = engine
    ours, theirs = (getattr(module, name)(4, 8, 3, stride=2, padding=1) for module in FAMILIES["quantized.dynamic"])
    weight, bias = int8(*ours.weight().shape), torch.randn(8)
    for module in (ours, theirs):
        module.set_weight_bias(weight, bias)
    x = torch.randn(2, 4, *[7] * int(name[-2]))
    assert torch.equal(ours(x, reduce_range), theirs(x, reduce_range))
    if (name, engine) != ("Conv3d", "qnnpack"):  # that weight cannot be unpacked, so the original has no state
        assert repr(ours) == repr(theirs)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        assert torch.equal(ours(x), theirs(x))


RECURRENT = {
    "LSTM": [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}],
    "GRU": [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}],
    "LSTMCell": [{}, {"bias": False}],
    "GRUCell": [{}, {"bias": False}],
    "RNNCell": [{}, {"nonlinearity": "relu"}],
}
DTYPES = [*((e, torch.qint8) for e in ENGINES), ("fbgemm", torch.float16), ("x86", torch.float16)]


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [] if result is None else [tensor for part in result for tensor in flat(part)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def recurrent_arguments(name, num_layers=1, bidirectional=False, batch_first=False, **_):
    if "Cell" in name:
        x, h = torch.randn(3, 4), torch.randn(3, 5)
    else:
        x = torch.randn(3, 7, 4) if batch_first else torch.randn(7, 3, 4)
        h = torch.randn(num_layers * (2 if bidirectional else 1), 3, 5)
    return x, (h, h / 2) if "LSTM" in name else h


@pytest.mark.parametrize(("name", "more"), [(name, more) for name, options in RECURRENT.items() for more in options])
@pytest.mark.parametrize(("engine", "dtype"), DTYPES)
def test_recurrent_modules_load_the_originals_state_and_compute_the_same_bits(name, more, engine, dtype):
    torch.backends.quantized.engine = engine
    ours, theirs = (getattr(family, name)(4, 5, dtype=dtype, **more) for family in (quantized.dynamic, ao_dynamic))
    ours.load_state_dict(theirs.state_dict(), strict=True)  # random: the original does not start at zero
    x, hx = recurrent_arguments(name, **more)
    assert same(ours(x), theirs(x))
    assert same(ours(x, hx), theirs(x, hx))
    assert repr(ours) == repr(theirs)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert ours.get_weight().keys() == theirs.get_weight().keys()
    assert ours.get_bias().keys() == theirs.get_bias().keys()
    assert set(dir(theirs)) - set(dir(ours)) == set()
    if "Cell" not in name:
        packed = nn.utils.rnn.pack_sequence([torch.randn(n, 4) for n in (2, 6, 3)], enforce_sorted=False)
        assert same(ours(packed), theirs(packed))
        assert same(ours(packed, hx), theirs(packed, hx))
        params = [cell.param for cell in ours._all_weight_values]
        for cell, param in zip(theirs._all_weight_values, params, strict=True):
            cell.param = param
        assert same(ours(x, hx), theirs(x, hx))


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize(
    "qconfig", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig", None]
)
def test_recurrent_modules_are_made_alike_from_float(name, qconfig):
    module = getattr(nn, name)(4, 5)
    module.qconfig = qconfig and getattr(ao_qconfig, qconfig)
    ours, theirs = (getattr(family, name).from_float(module) for family in (quantized.dynamic, ao_dynamic))
    x, hx = recurrent_arguments(name)
    assert same(ours(x, hx), theirs(x, hx))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_dropout_while_training_draws_alike(name):
    ours, theirs = (getattr(family, name)(4, 5, 2, dropout=0.5) for family in (quantized.dynamic, ao_dynamic))
    ours.load_state_dict(theirs.state_dict())
    x, _ = recurrent_arguments(name)
    results = []
    for module in (ours, theirs):
        torch.manual_seed(3)
        results.append(module.train()(x))
    assert same(*results)
