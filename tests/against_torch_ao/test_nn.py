"""``qfx.nn`` beside ``torch.ao.nn``: same signatures, same bits, state dicts that load both ways."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from qfx.nn import intrinsic, quantized

ao_quantized = pytest.importorskip("torch.ao.nn.quantized")
ao_intrinsic = pytest.importorskip("torch.ao.nn.intrinsic")
ao_intrinsic_quantized = pytest.importorskip("torch.ao.nn.intrinsic.quantized")
ao_reference = pytest.importorskip("torch.ao.nn.quantized.reference")
ao_observer = pytest.importorskip("torch.ao.quantization.observer")

FAMILIES = {
    "intrinsic": (intrinsic, ao_intrinsic),
    "quantized": (quantized, ao_quantized),
    "intrinsic.quantized": (intrinsic.quantized, ao_intrinsic_quantized),
    "quantized.reference": (quantized.reference, ao_reference),
    "quantized.functional": (quantized.functional, ao_quantized.functional),
}
# Compared in test_nn_recurrent.py.
ELSEWHERE = {"LSTM", "MultiheadAttention", "RNNCell", "LSTMCell", "GRUCell", "GRU"}


def names(family):
    ours, theirs = FAMILIES[family]
    if family == "quantized.functional":
        return [name for name, value in vars(theirs).items() if inspect.isfunction(value) and hasattr(ours, name)]
    return [name for name in theirs.__all__ if name not in ELSEWHERE]


EVERY_NAME = [(family, name) for family in FAMILIES for name in names(family)]
CONVS = [f"{kind}{d}d" for kind in ("Conv", "ConvTranspose") for d in (1, 2, 3)]
FUSED = [*(f"ConvReLU{d}d" for d in (1, 2, 3)), "LinearReLU"]
PACKED = [*CONVS, "Linear", *FUSED]


@pytest.fixture(autouse=True)
def _settings():
    engine = torch.backends.quantized.engine
    torch.manual_seed(0)
    yield
    torch.backends.quantized.engine = engine


def both(name):
    for ours, theirs in (FAMILIES["quantized"], FAMILIES["intrinsic.quantized"]):
        if hasattr(theirs, name):
            return getattr(ours, name), getattr(theirs, name)
    raise AssertionError(name)


@pytest.mark.parametrize(("family", "name"), EVERY_NAME)
def test_constructors_have_the_originals_parameters_then_keywords_of_their_own(family, name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in FAMILIES[family])
    own = list(ours.values())
    assert [p.name for p in own[: len(theirs)]] == list(theirs)
    assert [p.default for p in own[: len(theirs)]] == [p.default for p in theirs.values()]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in own[len(theirs) :])


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for family in ("quantized", "intrinsic.quantized")
        for name in names(family)
        for method in ("from_float", "from_reference")
        if hasattr(getattr(FAMILIES[family][1], name), method)
    ],
)
def test_ways_to_make_one_have_the_originals_parameters(name, method):
    ours, theirs = both(name)
    own = list(inspect.signature(getattr(ours, method)).parameters.values())
    original = inspect.signature(getattr(theirs, method)).parameters
    assert len(own) >= len(original)
    assert [p.default for p in own[: len(original)]] == [p.default for p in original.values()]


def quint8(*shape):
    return torch.quantize_per_tensor(torch.rand(*shape) * 5 - 1, 0.02, 50, torch.quint8)


def x_for(name):
    return quint8(3, 4) if "Linear" in name else quint8(2, 4, *[6] * int(name[-2]))


def int8(*shape, axis=None):
    if axis is None:
        return torch.quantize_per_tensor(torch.randn(*shape), 0.02, 0, torch.qint8)
    count = shape[axis]
    zeros = torch.zeros(count, dtype=torch.long)
    return torch.quantize_per_channel(torch.randn(*shape), torch.rand(count) * 0.02 + 0.01, zeros, axis, torch.qint8)


def filled(cls, bias=True, axis=None):
    linear = issubclass(cls, (quantized.Linear, ao_quantized.Linear))
    module = cls(4, 8, bias) if linear else cls(4, 8, 3, stride=2, padding=1, bias=bias)
    module.set_weight_bias(int8(*module.weight().shape, axis=axis), torch.randn(8) if bias else None)
    module.scale, module.zero_point = 0.125, 60
    return module


def same_bits(a, b):
    return torch.equal(a.int_repr(), b.int_repr()) and (a.q_scale(), a.q_zero_point()) == (
        b.q_scale(),
        b.q_zero_point(),
    )


@pytest.mark.parametrize(
    ("name", "engine"),
    # In three dimensions the original's qnnpack modules have no state: their weight cannot be unpacked.
    [
        (name, engine)
        for name in PACKED
        for engine in ("fbgemm", "onednn", "x86", "qnnpack")
        if not (engine == "qnnpack" and "3d" in name)
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_modules_load_each_others_states_and_compute_the_same_bits(name, engine, bias):
    torch.backends.quantized.engine = engine
    cls, original_cls = both(name)
    x = x_for(name)
    axis = None if "Transpose" in name else 0
    source, original = filled(cls, bias, axis), filled(original_cls, bias, axis)
    assert repr(cls(4, 8, 3) if "Conv" in name else cls(4, 8)) == repr(
        original_cls(4, 8, 3) if "Conv" in name else original_cls(4, 8)
    )
    ours, theirs = filled(cls, bias), filled(original_cls, bias)
    ours.load_state_dict(original.state_dict(), strict=True)
    theirs.load_state_dict(source.state_dict(), strict=True)
    assert same_bits(ours(x), original(x))
    assert same_bits(theirs(x), source(x))
    assert list(source.state_dict()) == list(original.state_dict())
    assert source.state_dict()._metadata == original.state_dict()._metadata


@pytest.mark.parametrize("name", ["LinearTanh", "LinearLeakyReLU", "ConvAdd2d", "ConvAddReLU2d"])
def test_what_onednn_alone_has(name):
    torch.backends.quantized.engine = "onednn"
    cls, original_cls = both(name)
    more = (4, 8, 0.1) if name == "LinearLeakyReLU" else (4, 8) if "Linear" in name else (4, 8, 3, 1, 1)
    ours, theirs = cls(*more), original_cls(*more)
    weight, bias = int8(*ours.weight().shape, axis=0), torch.randn(8)
    x = (quint8(3, 4),) if "Linear" in name else (quint8(2, 4, 6, 6), quint8(2, 8, 6, 6))
    for module in (ours, theirs):
        module.set_weight_bias(weight, bias)
        module.scale, module.zero_point = 0.125, 60
    expected = theirs(*x)
    torch.backends.quantized.engine = "fbgemm"  # the original refuses to run here
    assert same_bits(ours(*x), expected)


OBSERVERS = {
    "min-max": ao_observer.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
    "per channel": ao_observer.default_per_channel_weight_observer,
    "narrow": ao_observer.MinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, quant_min=-8, quant_max=7
    ),
    "narrow per channel": ao_observer.PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-8, quant_max=7
    ),
}


def observed_float(name, weight_observer, fused_family):
    inner = name.replace("ReLU", "")
    module = nn.Linear(4, 8) if inner == "Linear" else getattr(nn, inner)(4, 8, 3, padding=1)
    if inner != name:
        module = getattr(fused_family, name)(module, nn.ReLU())
    return module


def attach(module, qconfig, output):
    for part in module.modules():
        part.qconfig = qconfig
    module.activation_post_process = output
    return module


@pytest.mark.parametrize(
    ("name", "weight_observer"),
    # No engine of x86 packs transposed weights per channel.
    [(name, kind) for name in PACKED for kind in OBSERVERS if not ("Transpose" in name and "channel" in kind)],
)
def test_from_float_quantizes_alike(name, weight_observer):
    cls, original_cls = both(name)
    qconfig = SimpleNamespace(weight=OBSERVERS[weight_observer])
    output = ao_observer.HistogramObserver(quant_min=0, quant_max=127)
    output(torch.randn(500))
    ours = observed_float(name, weight_observer, intrinsic)
    theirs = observed_float(name, weight_observer, ao_intrinsic)
    theirs.load_state_dict(ours.state_dict())
    ours = cls.from_float(attach(ours, qconfig, output))
    theirs = original_cls.from_float(attach(theirs, qconfig, output))
    assert torch.equal(ours.weight().int_repr(), theirs.weight().int_repr())
    assert (ours.scale, ours.zero_point) == (theirs.scale, theirs.zero_point)
    x = x_for(name)
    assert same_bits(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)


QPARAMS = {
    "per tensor": {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 0},
    "decomposed": {
        "qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.0173, "zero_point": 3,
        "is_decomposed": True,
    },
    "unsigned": {"qscheme": torch.per_tensor_affine, "dtype": torch.quint8, "scale": 0.02, "zero_point": 128},
    "half": {"qscheme": torch.per_tensor_affine, "dtype": torch.float16},
    "none": {"qscheme": None, "dtype": torch.float16},
}  # fmt: skip


@pytest.mark.parametrize("name", [*CONVS, "Linear"])
@pytest.mark.parametrize("kind", [*QPARAMS, "per channel", "per channel decomposed"])
def test_reference_modules_agree_and_load_each_others_states(name, kind):
    if "decomposed" in kind:
        pytest.importorskip("torch.ao.quantization.fx._decomposed")
    float_module = observed_float(name, None, None)
    qparams = QPARAMS.get(kind)
    if qparams is None:
        count = float_module.weight.shape[0]
        scale, zero_point = torch.rand(count) * 0.02 + 0.01, torch.arange(count, dtype=torch.int)
        qparams = {
            "qscheme": torch.per_channel_affine, "dtype": torch.qint8, "scale": scale, "zero_point": zero_point,
            "axis": 0, "is_decomposed": "decomposed" in kind,
        }  # fmt: skip
    ours, theirs = (
        getattr(family, name).from_float(float_module, qparams) for family in FAMILIES["quantized.reference"]
    )
    x = x_for(name).dequantize()
    assert torch.equal(ours.get_weight(), theirs.get_weight())
    assert torch.equal(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    if kind not in ("half", "none"):
        mine, original = ours.get_quantized_weight(), theirs.get_quantized_weight()
        assert mine.dtype == original.dtype
        assert torch.equal(*(w.int_repr() if w.is_quantized else w for w in (mine, original)))
    blank = type(ours)(4, 8) if name == "Linear" else type(ours)(4, 8, 3, padding=1)
    if not ours.is_decomposed:
        blank.load_state_dict(theirs.state_dict(), strict=True)
        assert torch.equal(blank(x), ours(x))
    theirs.load_state_dict(ours.state_dict(), strict=True)


def p(count):
    return nn.Parameter(torch.rand(count) + 0.5)


SMALL = {
    "ReLU6": ((), (3, 4)),
    "Hardswish": ((0.1, 3), (3, 4)),
    "ELU": ((0.1, 30, 0.7), (3, 4)),
    "LeakyReLU": ((0.1, 30, 0.2), (3, 4)),
    "Sigmoid": ((1 / 256, 0), (3, 4)),
    "Softmax": ((1, 1 / 256, 0), (3, 4)),
    "LayerNorm": (([4], p(4), p(4), 0.1, 100), (3, 4)),
    "GroupNorm": ((2, 4, p(4), p(4), 0.1, 100), (2, 4, 5, 5)),
    "InstanceNorm1d": ((4, p(4), p(4), 0.1, 100), (2, 4, 5)),
    "InstanceNorm2d": ((4, p(4), p(4), 0.1, 100), (2, 4, 5, 5)),
    "InstanceNorm3d": ((4, p(4), p(4), 0.1, 100), (2, 4, 5, 5, 5)),
    "BatchNorm2d": ((4,), (2, 4, 5, 5)),
    "BatchNorm3d": ((4,), (2, 4, 5, 5, 5)),
    "BNReLU2d": ((4,), (2, 4, 5, 5)),
    "BNReLU3d": ((4,), (2, 4, 5, 5, 5)),
    "Dropout": ((0.3,), (3, 4)),
    "QFunctional": ((), None),
    "Quantize": ((0.1, 3, torch.quint8), None),
    "DeQuantize": ((), None),
}


@pytest.mark.parametrize("name", SMALL)
def test_other_modules_agree_and_load_each_others_states(name):
    (cls, original_cls), (arguments, shape) = both(name), SMALL[name]
    ours, theirs = cls(*arguments), original_cls(*arguments)
    for source, target in ((ours, theirs), (theirs, ours)):
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
        # The original's forget their qparams, and ours say them
        forgetful = target is theirs and name in ("ELU", "Sigmoid", "Softmax")
        target.load_state_dict(source.state_dict(), strict=not forgetful)
        if shape is not None:
            x = quint8(*shape)
            assert same_bits(ours(x), theirs(x))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2])
def test_embeddings_agree_and_load_each_others_states(name, dtype):
    cls, original_cls = both(name)
    table = torch.quantize_per_channel(torch.randn(10, 12), torch.rand(10) * 0.2 + 0.1, torch.rand(10) * 3, 0, dtype)
    ours, theirs = cls(10, 12, dtype=dtype), original_cls(10, 12, dtype=dtype)
    ours.set_weight(table)
    x = torch.tensor([[1, 2], [5, 9]])
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(theirs(x), ours(x))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(theirs(x), ours(x))
    assert repr(ours) == repr(theirs)
