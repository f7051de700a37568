"""The modules compute what torch's quantized operators compute, and refuse in words what those cannot."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qfx.config import QConfig
from qfx.errors import ConfigError, KernelError, QfxError
from qfx.kernels.packing import ENGINES, pack_linear
from qfx.nn import intrinsic, quantized
from qfx.nn.errors import InputError
from qfx.observers import PerChannelMinMaxObserver, PlaceholderObserver

nniq = intrinsic.quantized
ops = torch.ops.quantized
OPERATORS = {
    **{f"Conv{d}d": f"conv{d}d" for d in (1, 2, 3)},
    **{f"ConvReLU{d}d": f"conv{d}d_relu" for d in (1, 2, 3)},
    **{f"ConvTranspose{d}d": f"conv_transpose{d}d" for d in (1, 2, 3)},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions(ready, inputs, name, engine, bias):
    if (name, engine) == ("ConvTranspose3d", "qnnpack"):
        with pytest.raises(KernelError, match="wrong numbers"):
            ready(name, engine=engine)
        return
    module, (x,) = ready(name, bias=bias, engine=engine), inputs(name)
    dims = [1] * int(name[-2])
    geometry = [dims, dims, *([[0] * len(dims)] if "Transpose" in name else []), dims]
    torch.backends.quantized.engine = engine
    prepack = getattr(ops, OPERATORS[name].removesuffix("_relu") + "_prepack")
    expected = getattr(ops, OPERATORS[name])(x, prepack(module.weight(), module.bias(), *geometry, 1), 0.11, 60)
    torch.backends.quantized.engine = "x86"
    y = module(x)
    assert torch.equal(y.int_repr(), expected.int_repr())
    assert (y.q_scale(), y.q_zero_point(), y.dtype) == (0.11, 60, torch.quint8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "op"), [("Linear", ops.linear), ("LinearReLU", ops.linear_relu)])
def test_linear(ready, codes, name, op, engine):
    module, x = ready(name, engine=engine, axis=0), codes(2, 3, 4)
    expected = op(x, pack_linear(module.weight(), module.bias(), engine=engine), 0.11, 60)
    assert torch.equal(module(x).int_repr(), expected.int_repr())


@pytest.mark.parametrize("name", ["LinearTanh", "LinearLeakyReLU"])
@pytest.mark.parametrize("selected", ["x86", "onednn"])
def test_activations_that_onednn_alone_has_run_under_any_setting(ready, inputs, name, selected):
    torch.backends.quantized.engine = selected
    module, (x,) = ready(name), inputs(name)
    y = F.linear(x.dequantize(), module.weight().dequantize(), module.bias())
    y = y.tanh() if name == "LinearTanh" else F.leaky_relu(y, 0.1)
    expected = torch.quantize_per_tensor(y, 0.11, 60, torch.quint8)
    assert module.engine == "onednn"
    assert (module(x).int_repr().int() - expected.int_repr().int()).abs().max() <= 1
    assert torch.backends.quantized.engine == selected


@pytest.mark.parametrize("name", ["ConvAdd2d", "ConvAddReLU2d"])
def test_convolution_and_addition_run_under_any_setting(ready, inputs, name):
    torch.backends.quantized.engine = "fbgemm"
    module, (x, extra) = ready(name), inputs(name)
    y = F.conv2d(x.dequantize(), module.weight().dequantize(), module.bias(), padding=1) + extra.dequantize()
    expected = torch.quantize_per_tensor(y.relu() if "ReLU" in name else y, 0.11, 60, torch.quint8)
    # The sum is made of the convolution's rounded codes, so a code or two off is what the kernel gives.
    assert (module(x, extra).int_repr().int() - expected.int_repr().int()).abs().max() <= 2


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvReLU2d"])
def test_reflection_padding_is_done_before_the_kernel(ready, inputs, name):
    module, (x,) = ready(name, padding_mode="reflect"), inputs(name)
    plain = ready(name)
    plain.set_weight_bias(*module._weight_bias())
    inner = tuple(slice(1, -1) for _ in range(x.dim() - 2))
    padded = F.pad(x, [1, 1] * (x.dim() - 2), mode="reflect")
    assert torch.equal(module(x).int_repr(), plain(padded).int_repr()[(..., *inner)])
    assert module.padding == (1,) * (x.dim() - 2)


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    engine=st.sampled_from(["fbgemm", "onednn"]),
)
def test_every_geometry_agrees_with_the_float_convolution(kernel, stride, padding, dilation, groups, engine):
    module = quantized.Conv2d(4, 8, kernel, stride, padding, dilation, groups, engine=engine)
    weight = torch.quantize_per_tensor(torch.randn(8, 4 // groups, *kernel), 0.02, 0, torch.qint8)
    module.set_weight_bias(weight, torch.randn(8))
    module.scale, module.zero_point = 0.1, 128
    x = torch.quantize_per_tensor(torch.rand(2, 4, 7, 8), 0.01, 3, torch.quint8)
    y = F.conv2d(x.dequantize(), weight.dequantize(), module.bias(), stride, padding, dilation, groups)
    expected = torch.quantize_per_tensor(y, 0.1, 128, torch.quint8)
    assert (module(x).int_repr().int() - expected.int_repr().int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation", "expected"),
    [
        ("valid", 3, 1, (0, 0)),
        ("same", 3, 1, (1, 1)),
        ("same", (3, 5), 2, (2, 4)),
        ((1, 2), 3, 1, (1, 2)),
        (1, 3, 1, (1, 1)),
    ],
)
def test_padding_in_words_and_numbers(padding, kernel, dilation, expected):
    assert quantized.Conv2d(4, 8, kernel, padding=padding, dilation=dilation).padding == expected


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: quantized.Conv2d(4, 8, 2, padding="same"), InputError, "not the same on both sides.*pad explicitly"),
        (lambda: quantized.Conv2d(3, 8, 3, groups=2), ValueError, "in_channels must be divisible by groups"),
        (lambda: quantized.Conv2d(4, 7, 3, groups=2), ValueError, "out_channels must be divisible by groups"),
        (lambda: quantized.Conv2d(4, 0, 3), ValueError, "out_channels must be greater than 0"),
        (lambda: quantized.Conv2d(4, 8, 3, padding_mode="circular"), ConfigError, "circular is not.*zeros or reflect"),
        (
            lambda: quantized.Conv3d(4, 8, 3, padding_mode="reflect"),
            ConfigError,
            "Conv3d does not support reflection padding",
        ),
        (lambda: quantized.ConvTranspose2d(4, 8, 3, padding_mode="reflect"), ValueError, "use zeros"),
        (lambda: quantized.Conv2d(4, 8, (3, 3, 3)), InputError, "expected a number or 2 of them"),
        (lambda: quantized.Conv2d(4, 8, 3, device="cuda"), InputError, "CPU only, not on cuda"),
        (
            lambda: quantized.Linear(4, 8, dtype=torch.quint8),
            ConfigError,
            "Unsupported dtype specified for quantized Linear! .* not torch.quint8",
        ),
        (lambda: quantized.Conv2d(4, 8, 3, engine="cudnn"), ConfigError, "'cudnn' is not an engine"),
        (lambda: quantized.EmbeddingBag(4, 8, mode="max"), ConfigError, "mode='max' has no kernel"),
        (lambda: quantized.Embedding(4, 8, dtype=torch.qint8), NotImplementedError, "quint8 and quint4x2"),
        (lambda: quantized.Embedding(4, 8, _weight=torch.ones(2, 2)), ValueError, r"\(2, 2\), not \(4, 8\)"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_out(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, QfxError)


@pytest.mark.parametrize("name", [*OPERATORS, "ConvAdd2d"])
def test_inputs_of_another_rank_are_refused(ready, inputs, name):
    x = inputs(name)
    with pytest.raises(ValueError, match=r"Input shape must be `\(N, C, .*but it is \(4, ") as caught:
        ready(name)(x[0][0], *x[1:])
    assert isinstance(caught.value, KernelError)


def test_new_modules_are_zero_and_runnable(codes):
    y = quantized.Conv2d(4, 8, 3)(codes(1, 4, 5, 5))
    assert y.int_repr().count_nonzero() == 0
    assert (y.q_scale(), y.q_zero_point()) == (1.0, 0)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            lambda: quantized.Conv2d(4, 8, 3),
            "QuantizedConv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), scale=1.0, zero_point=0)",
        ),
        (
            lambda: quantized.ConvTranspose1d(4, 8, 3, 2, 1, 1, 2, False, 2),
            "QuantizedConvTranspose1d(4, 8, kernel_size=(3,), stride=(2,), scale=1.0, zero_point=0, padding=(1,), "
            "dilation=(2,), output_padding=(1,), groups=2, bias=False)",
        ),
        (
            lambda: nniq.LinearReLU(4, 8),
            "QuantizedLinearReLU(in_features=4, out_features=8, scale=1.0, zero_point=0, "
            "qscheme=torch.per_tensor_affine)",
        ),
        (lambda: quantized.QFunctional(), "scale=1.0, zero_point=0"),
        (lambda: quantized.Quantize(0.5, 3, torch.quint8), "zero_point=tensor([3]), dtype=torch.quint8"),
        (lambda: quantized.Embedding(3, 2), "QuantizedEmbedding(num_embeddings=3, embedding_dim=2, dtype=torch.quint8"),
        (lambda: quantized.reference.Conv2d(4, 8, 3), "QuantizedConv2d(Reference)(4, 8, kernel_size=(3, 3)"),
    ],
)
def test_representations(module, text):
    assert text in repr(module())


@pytest.mark.parametrize(
    ("layer", "weight", "unpack", "channels"),
    [
        (lambda: quantized.Linear(4, 3), [3, 4], torch.ops.quantized.linear_unpack, 3),
        (lambda: quantized.dynamic.Linear(4, 3), [3, 4], torch.ops.quantized.linear_unpack, 3),
        (lambda: quantized.Conv2d(4, 2, 1, groups=2), [2, 2, 1, 1], torch.ops.quantized.conv2d_unpack, 2),
        (
            lambda: quantized.ConvTranspose2d(4, 6, 1, groups=2),
            [4, 3, 1, 1],
            torch.ops.quantized.conv_transpose2d_unpack,
            6,
        ),
    ],
)
@pytest.mark.parametrize("engine", ["qnnpack", "fbgemm"])
def test_a_module_without_a_bias_says_what_its_engine_packed(layer, weight, unpack, channels, engine):
    """qnnpack packs zeros for no bias; the state is what it unpacks."""
    torch.backends.quantized.engine = engine
    made = layer()
    made.set_weight_bias(torch.quantize_per_tensor(torch.rand(weight), 0.1, 0, torch.qint8), None)
    packed = made._packed_params
    expected = unpack(getattr(packed, "_packed_params", packed))[1]
    assert (made.bias() is None) == (expected is None) == (engine == "fbgemm")
    if expected is not None:
        assert torch.equal(made.bias(), torch.zeros(channels))


BAGS = {
    "1d": (torch.tensor([1, 3, 3, 2, 4, 3, 3]), torch.tensor([0, 2, 2, 5])),  # the second is empty
    "1d, last offset": (torch.tensor([1, 3, 3, 2, 4, 3, 3]), torch.tensor([0, 2, 2, 5, 7])),
    "2d": (torch.tensor([[1, 3], [3, 3]]),),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("bags", BAGS)
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2])
def test_bags_are_summed_or_averaged_without_padding(dtype, mode, padding, bags):
    last = bags.endswith("offset")
    bag = nn.EmbeddingBag(10, 12, mode=mode, padding_idx=padding, include_last_offset=last)
    nn.init.normal_(bag.weight)  # the row of the padding too
    observer = PerChannelMinMaxObserver.with_args(
        dtype=dtype, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
    )
    bag.qconfig = QConfig(activation=PlaceholderObserver, weight=observer)
    made = quantized.EmbeddingBag.from_float(bag)
    # The 4-bit kernel reads scales as half floats
    close = {} if dtype == torch.quint8 else {"rtol": 0, "atol": 0.02}
    expected = nn.EmbeddingBag.from_pretrained(
        made.weight().dequantize(), mode=mode, padding_idx=padding, include_last_offset=last
    )
    for index in (torch.int64, torch.int32):
        inputs = [x.to(index) for x in BAGS[bags]]
        for module in (made, torch.jit.script(made), torch.fx.symbolic_trace(made)):
            torch.testing.assert_close(module(*inputs), expected(*inputs), **close)


def test_the_mean_of_weighted_rows_is_refused():
    made = quantized.EmbeddingBag(4, 8, mode="mean")
    with pytest.raises(NotImplementedError, match="per_sample_weights are for mode='sum'"):
        made(torch.tensor([1, 2]), torch.tensor([0]), torch.ones(2))
