"""Dynamically quantized convolutions: the static kernel in the scale of the input, the rest as the static modules."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch

from qfx.kernels.packing import packed_by
from qfx.nn import quantized

nnqd = quantized.dynamic
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

NAMES = [f"{kind}{dims}d" for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)]
CASES = [(n, e) for n in NAMES for e in ("fbgemm", "onednn", "qnnpack") if (n, e) != ("ConvTranspose3d", "qnnpack")]


def quietly(name, *arguments, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(nnqd, name)(*arguments, **more)


def filled(int8, name, engine=None, **more):
    module = quietly(name, 4, 8, 3, stride=2, padding=1, engine=engine, **more)
    module.set_weight_bias(int8(*module.weight().shape), torch.randn(8))
    return module


@pytest.mark.filterwarnings("ignore:The current implementation:UserWarning")
@pytest.mark.parametrize(("name", "engine"), CASES)
def test_the_kernel_is_the_static_one_in_the_inputs_scale_in_every_form(int8, name, engine):
    module = filled(int8, name, engine)
    x = torch.randn(2, 4, *[6] * int(name[-2]))
    # What torch chooses for 7 bits (qnnpack: 8): the range with zero in it, zero on a code.
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / (255 if engine == "qnnpack" else 127)
    codes = torch.quantize_per_tensor(x, scale, round(-low / scale), torch.quint8)
    static = getattr(quantized, name)(4, 8, 3, stride=2, padding=1, engine=engine)
    static.set_weight_bias(*module._weight_bias())
    static.scale, static.zero_point = codes.q_scale(), codes.q_zero_point()
    # The kernel works its qparams out in other floats: one code may differ.
    torch.testing.assert_close(module(x), static(codes).dequantize(), atol=scale * 1.01, rtol=0)
    torch.backends.quantized.engine = engine
    script = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    forms = [script, torch.jit.load(file), torch.fx.symbolic_trace(torch.nn.Sequential(module))]
    with packed_by("fbgemm"):
        forms += [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    loaded = quietly(name, 4, 8, 3, stride=2, padding=1, engine=engine)
    loaded.load_state_dict(module.state_dict(), strict=True)
    for made in (*forms, loaded):
        assert torch.equal(made(x), module(x))


@pytest.mark.parametrize("name", NAMES)
def test_every_new_one_warns_at_the_line_that_makes_it(name):
    with pytest.warns(
        UserWarning, match=f"DynamicQuantized{name} module has poor numerical accuracy.*range of the input"
    ) as seen:
        getattr(nnqd, name)(4, 8, 3)
    assert seen[0].filename == __file__


def test_inputs_may_keep_8_bits(int8):
    module, x = filled(int8, "Conv2d", "fbgemm"), torch.randn(2, 4, 6, 6)
    expected = torch.ops.quantized.conv2d_dynamic(x, module._packed_params, False)
    assert torch.equal(module(x, reduce_range=False), expected)
    assert torch.equal(module(x), torch.ops.quantized.conv2d_dynamic(x, module._packed_params, True))


def test_reflection_padding_is_done_before_the_kernel(int8):
    module, x = filled(int8, "Conv2d", padding_mode="reflect"), torch.randn(2, 4, 6, 6)
    plain = quietly("Conv2d", 4, 8, 3, stride=2)
    plain.set_weight_bias(*module._weight_bias())
    assert torch.equal(module(x), plain(torch.nn.functional.pad(x, [1, 1, 1, 1], mode="reflect")))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_another_rank_are_refused(int8, name):
    with pytest.raises(ValueError, match=r"Input shape must be `\(N, C, .*but it is \(4,\)"):
        filled(int8, name)(torch.randn(4))


@pytest.mark.filterwarnings("ignore:The current implementation:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_from_float(observed, name):
    module = getattr(torch.nn, name)(4, 8, 3)
    module.qconfig = SimpleNamespace(weight=lambda: observed(0.02, 0, torch.qint8))
    made = getattr(nnqd, name).from_float(module)
    assert type(made) is getattr(nnqd, name)
    assert torch.equal(
        made.weight().int_repr(), torch.quantize_per_tensor(module.weight, 0.02, 0, torch.qint8).int_repr()
    )
    assert repr(made).startswith(f"DynamicQuantized{name}(4, 8, kernel_size=")
