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
EVERY_NAME = [
    (family, name)
    for family, (_, theirs) in FAMILIES.items()
    for name in theirs.modules.__all__
    if hasattr(FAMILIES[family][0], name)
]
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
