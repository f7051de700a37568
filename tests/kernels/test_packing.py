"""Packed weights are caches: made from a spec, by the engine the spec names, whatever torch has selected."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from itertools import product

import pytest
import torch

from qfx.errors import ConfigError, KernelError
from qfx.kernels import packing
from qfx.kernels.packing import (
    ENGINES,
    PackedSpec,
    pack_conv,
    pack_linear,
    packed_by,
    supported_engines,
    unpack,
    usable_engine,
)

ops = torch.ops.quantized


def conv_spec(int8, dims=2, transposed=False, **more):
    ones = (1,) * dims
    more = {"stride": ones, "padding": ones, "dilation": ones} | more
    return PackedSpec(f"conv{dims}d", int8(8, 8, *[3] * dims), torch.randn(8), transposed=transposed, **more)


def run(spec, x):
    name = spec.kind.replace("conv", "conv_transpose") if spec.transposed else spec.kind
    return getattr(ops, name)(x, spec.pack(), 0.11, 60).int_repr()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_is_selected_inside_the_block_and_restored_after(engine):
    torch.backends.quantized.engine = "fbgemm"
    with packed_by(engine) as chosen:
        assert chosen == engine == torch.backends.quantized.engine
    assert torch.backends.quantized.engine == "fbgemm"


def test_the_engine_is_restored_when_the_block_raises():
    torch.backends.quantized.engine = "fbgemm"
    with pytest.raises(ZeroDivisionError), packed_by("onednn"):
        raise ZeroDivisionError
    assert torch.backends.quantized.engine == "fbgemm"


def test_none_means_the_engine_selected_in_torch():
    torch.backends.quantized.engine = "qnnpack"
    with packed_by(None) as chosen:
        assert chosen == "qnnpack"


def test_an_unknown_engine_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'cudnn' is not an engine.*fbgemm"):
        usable_engine("cudnn")


@pytest.mark.parametrize(
    ("has", "wanted", "gets"), [(["onednn", "qnnpack"], "fbgemm", "onednn"), (["fbgemm"], "x86", "fbgemm")]
)
def test_a_missing_engine_is_replaced_by_one_whose_codes_may_differ_by_one_and_says_so(monkeypatch, has, wanted, gets):
    monkeypatch.setattr(packing, "supported_engines", lambda: has)
    said = f"no engine '{wanted}'; packed by '{gets}', whose codes may differ by one"
    with pytest.warns(UserWarning, match=said):
        assert usable_engine(wanted) == gets


def test_the_selected_engine_is_replaced_in_silence_for_nobody_asked_for_it(monkeypatch):
    torch.backends.quantized.engine = "fbgemm"
    monkeypatch.setattr(packing, "supported_engines", lambda: ["onednn"])
    assert usable_engine(None) == "onednn"


@pytest.mark.parametrize(("has", "wanted"), [(["qnnpack"], "onednn"), (["fbgemm"], "qnnpack")])
def test_a_missing_engine_is_replaced_by_another_arithmetic_with_a_warning(monkeypatch, has, wanted):
    monkeypatch.setattr(packing, "supported_engines", lambda: has)
    with pytest.warns(UserWarning, match=f"no engine '{wanted}'; packed by '{has[0]}', which rounds differently"):
        assert usable_engine(wanted) == has[0]


def test_a_build_without_engines_is_an_error(monkeypatch):
    monkeypatch.setattr(packing, "supported_engines", lambda: [])
    with pytest.raises(ConfigError, match="no engine for quantized kernels"):
        usable_engine("fbgemm")


def test_a_spec_records_the_engine_it_was_made_under(int8, codes):
    torch.backends.quantized.engine = "qnnpack"
    spec = conv_spec(int8)
    x = codes(1, 8, 9, 9)
    y = run(spec, x)
    assert spec.engine == "qnnpack"
    torch.backends.quantized.engine = "fbgemm"
    for copied in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert copied.engine == "qnnpack"
        assert torch.equal(run(copied, x), y)
    assert torch.backends.quantized.engine == "fbgemm"


@pytest.mark.parametrize(
    ("engine", "dims", "transposed"),
    [case for case in product(ENGINES, (1, 2, 3), (False, True)) if case != ("qnnpack", 3, True)],  # refused, see below
)
def test_what_a_spec_packs_computes_the_convolution(int8, codes, engine, dims, transposed):
    spec = conv_spec(int8, dims, transposed, engine=engine)
    x = codes(1, 8, *[5] * dims)
    kernel = getattr(torch, f"conv_transpose{dims}d" if transposed else f"conv{dims}d")
    y = kernel(x.dequantize(), spec.weight.dequantize(), spec.bias, padding=1)
    expected = torch.quantize_per_tensor(y, 0.11, 60, torch.quint8).int_repr()
    assert (run(spec, x).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_linear(int8, codes, engine):
    weight, bias, x = int8(8, 4, axis=0), torch.randn(8), codes(5, 4)
    y = ops.linear(x, pack_linear(weight, bias, engine=engine), 0.11, 60).int_repr()
    expected = torch.quantize_per_tensor(x.dequantize() @ weight.dequantize().T + bias, 0.11, 60, torch.quint8)
    assert (y.int() - expected.int_repr().int()).abs().max() <= 1


def test_output_padding_and_groups_reach_the_kernel(int8, codes):
    spec = PackedSpec(
        "conv2d", int8(8, 2, 3, 3), None, (2, 2), (1, 1), (1, 1), (1, 1), groups=4, transposed=True, engine="fbgemm"
    )
    assert ops.conv_transpose2d(codes(1, 8, 5, 5), pack_conv(spec), 0.11, 60).shape == (1, 8, 10, 10)


def test_qnnpack_is_not_given_the_transposed_3d_convolution_it_computes_wrong(int8, codes):
    spec = conv_spec(int8, 3, True, engine="qnnpack")
    with pytest.raises(
        KernelError, match=r"'qnnpack' cannot pack this transposed conv3d .*wrong numbers; choose another"
    ):
        spec.pack()
    # The evidence: were it packed, most codes would be far off.
    torch.backends.quantized.engine = "qnnpack"
    ones = [1] * 3
    packed = ops.conv_transpose3d_prepack(spec.weight, spec.bias, ones, ones, [0] * 3, ones, 1)
    x = codes(1, 8, 5, 5, 5)
    right = run(dataclasses.replace(spec, engine="fbgemm"), x)
    assert (ops.conv_transpose3d(x, packed, 0.11, 60).int_repr().int() - right.int()).abs().max() > 50


@pytest.mark.parametrize(
    ("engine", "more", "why"),
    [
        ("fbgemm", {"axis": 1}, "Per Channel Quantization"),
        ("onednn", {"output_padding": (1, 1), "stride": (2, 2)}, "zero output_padding"),
        ("qnnpack", {"axis": 1, "groups": 2}, "misreads per-channel scales"),
    ],
)
def test_what_an_engine_cannot_pack_is_one_error_with_the_reason(int8, engine, more, why):
    more = dict(more)
    weight = int8(8, 4, 3, 3, axis=more.pop("axis", None))
    ones = (1, 1)
    geometry = {"stride": ones, "padding": ones, "dilation": ones} | more
    spec = PackedSpec("conv2d", weight, None, transposed=True, engine=engine, **geometry)
    with pytest.raises(KernelError, match=f"{engine}.*transposed conv2d.*{why}"):
        spec.pack()


def test_other_dtypes_and_kinds_are_refused(int8):
    with pytest.raises(KernelError, match=r"torch\.qint8 weights only"):
        PackedSpec("linear", torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8)).pack()
    with pytest.raises(ConfigError, match="no packed weight of kind 'conv4d'"):
        PackedSpec("conv4d", int8(1, 1))
    with pytest.raises(ConfigError, match="no packed weight of kind 'gru'"):
        unpack(None, "gru")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_unpacking_gives_back_what_was_packed(int8, engine, kind):
    torch.backends.quantized.engine = "x86"
    dims = 0 if kind == "linear" else int(kind[4])
    weight, bias, ones = int8(8, 4, *[3] * dims, axis=0), torch.randn(8), (1,) * dims
    spec = PackedSpec(kind, weight, bias, stride=ones, padding=ones, dilation=ones, engine=engine)
    back, back_bias = unpack(spec.pack(), kind, engine=engine)
    assert torch.equal(back.int_repr(), weight.int_repr())
    # fbgemm keeps scales as float32: one more reason to own the weight instead of unpacking it.
    assert torch.equal(back.q_per_channel_scales().float(), weight.q_per_channel_scales().float())
    assert torch.equal(back_bias, bias)


def test_what_cannot_be_unpacked_says_what_to_do(int8):
    packed = conv_spec(int8, 3, engine="qnnpack").pack()
    with pytest.raises(KernelError, match=r"cannot unpack this conv3d: .*keep a PackedSpec"):
        unpack(packed, "conv3d", engine="qnnpack")


def test_this_machine_has_all_engines_the_tests_assume():
    assert set(supported_engines()) == set(ENGINES)


def test_a_graph_module_calls_with_the_packed_object_and_is_remade_from_the_spec(int8, codes):
    spec = PackedSpec("linear", int8(8, 4), torch.randn(8), engine="onednn")

    class Root(torch.nn.Module):
        def __init__(self, spec):
            super().__init__()
            self._packed_weight_0 = spec.pack()

        def forward(self, x):
            return torch.ops.quantized.linear(x, self._packed_weight_0, 0.1, 60)

    graph_module, x = torch.fx.symbolic_trace(Root(spec)), codes(3, 4)
    y = graph_module(x).int_repr()
    torch.backends.quantized.engine = "qnnpack"
    root = {"_packed_weight_0": pickle.loads(pickle.dumps(spec)).pack()}
    assert torch.equal(torch.fx.GraphModule(root, copy.deepcopy(graph_module.graph))(x).int_repr(), y)


def test_a_sparse_weight_packs_and_unpacks(int8):
    weight, bias = int8(8, 16), torch.randn(8)
    for engine in ("fbgemm", "qnnpack"):
        packed = packing.PackedSpec("linear_sparse", weight, bias, block=(1, 4), engine=engine).pack()
        found, found_bias = packing.unpack(packed, "linear_sparse", engine=engine)
        assert torch.equal(found.int_repr(), weight.int_repr())
        assert torch.equal(found_bias, bias)
