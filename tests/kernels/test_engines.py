"""The engine tables: deterministic, obeyed, right about what engines cannot do, and free of what they cannot do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import KernelError
from qfx.kernels import EngineChoice, LayerFacts, Reject, choose_engine, engine_for, reference
from qfx.kernels.cpu import has_tiles
from qfx.kernels.engines import ENGINES, LIMITS, RULES, limits
from qfx.kernels.packing import PackedSpec, reaches_direct_kernel
from qfx.qparams import QParams

CAPABILITIES = ("AVX2", "AVX512")


def conv(
    op: str = "conv2d", cin: int = 64, cout: int = 64, groups: int = 1, k: int = 3, s: int = 1, p: int = 1, **more
) -> LayerFacts:
    dims = int(op[-2])
    out_pad = (0,) * dims if "transpose" in op else ()
    shape = {"kernel": (k,) * dims, "stride": (s,) * dims, "padding": (p,) * dims, "dilation": (1,) * dims}
    return LayerFacts(op, cin, cout, groups=groups, **{**shape, "output_padding": out_pad, **more})


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    ("layer", "engine"),
    [
        (LayerFacts("linear", 1280, 1000), "fbgemm"),
        (conv(cin=3, cout=32, s=2), "onednn"),
        (conv(cin=96, cout=96, groups=96, s=2, p=0), "onednn"),  # 48 ms with fbgemm
        (conv(cin=96, cout=96, groups=96, s=2), "onednn"),
        (conv(cin=16, cout=96, k=1, p=0), "onednn"),
        (conv(groups=32), "fbgemm"),  # two channels a group
        (conv(cin=32, groups=32, act_codes=(0, 127)), "fbgemm"),  # depthwise, two outputs each
        (conv(cin=32, groups=32, act_codes=(0, 128)), "fbgemm"),
        (conv(cin=32, groups=32, act_codes=(0, 129)), "onednn"),  # fbgemm would saturate 16-bit sums
        (conv(cin=32, groups=32), "onednn"),
        (conv(cin=32, groups=32, symmetric_weight=False), "qnnpack"),  # onednn takes none such
        (conv(groups=8), "onednn"),
        (conv("conv3d", 32, 32), "onednn"),
        (conv("conv1d", 64, 64, groups=64), "onednn"),
        (conv("conv_transpose2d", 64, 64, k=4, s=2), "onednn"),
        (conv("conv_transpose2d", 64, 32, k=4, s=2), "fbgemm"),  # onednn is wrong
        (conv("conv_transpose2d", 64, 64, k=2, s=2, p=0), "onednn"),
        (conv("conv_transpose2d", 128, 64, k=2, s=2, p=0), "fbgemm"),  # onednn is wrong
        (conv("conv_transpose2d", 64, 64, s=2, per_channel=True), "qnnpack"),
        (conv("conv_transpose3d", 8, 8, s=2, output_padding=(1, 1, 1)), "fbgemm"),
        (LayerFacts("linear", 64, 64, symmetric_weight=False), "fbgemm"),
        (conv(cin=1, cout=32, k=2, p=2), "fbgemm"),  # onednn reads memory nobody wrote
        (conv(cin=1, cout=32), "onednn"),
        (conv("conv1d", 24, 8, groups=8, k=1, s=3), "fbgemm"),  # onednn may end the process
        (conv("conv1d", 16, 16, groups=8, k=1, s=3), "fbgemm"),
        (conv(symmetric_weight=False), "fbgemm"),
    ],
)
def test_the_choice(layer: LayerFacts, engine: str, capability: str) -> None:
    choice = choose_engine(layer, capability=capability)
    assert isinstance(choice, EngineChoice)
    assert choice.engine == engine
    assert choice.why


@pytest.mark.parametrize(
    ("layer", "engine"),
    [
        (conv(cin=3, cout=32, s=2), "fbgemm"),  # onednn is wrong where one column is left
        (conv("conv1d", cin=16, cout=32, s=3), "fbgemm"),
        (conv(cin=96, cout=96, groups=96, s=2), "onednn"),  # depthwise layers have no tiles
        (conv(cin=3, cout=32), "onednn"),
        (LayerFacts("linear", 1280, 1000), "fbgemm"),
        (conv(cin=672, cout=192, k=1, p=0), "fbgemm"),  # onednn packs them anew for every other shape
        (conv(cin=32, cout=16, k=1, p=0), "onednn"),
    ],
)
def test_the_choice_with_tiles(layer: LayerFacts, engine: str) -> None:
    chosen = choose_engine(layer, capability="AVX512_AMX")
    assert isinstance(chosen, EngineChoice)
    assert chosen.engine == engine
    refused = layer.stride[-1:] not in ((), (1,)) and not layer.depthwise
    assert (limits(layer, "onednn", tiles=True) is not None) is refused


@pytest.mark.parametrize(
    ("layer", "wide", "narrow"),
    [
        (conv(cin=66, cout=66, groups=11), "onednn", "fbgemm"),  # six channels a group
        (conv("conv3d", 32, 32, groups=32, act_codes=(0, 127)), "onednn", "fbgemm"),
        (conv("conv3d", 32, 32, groups=32), "onednn", "onednn"),  # plain loops, but right
        (conv("conv1d", 64, 128, groups=64), "onednn", "fbgemm"),
    ],
)
def test_choices_that_depend_on_the_cpu(layer: LayerFacts, wide: str, narrow: str) -> None:
    found = [choose_engine(layer, capability=name) for name in ("AVX512", "AVX2")]
    assert [c.engine for c in found if isinstance(c, EngineChoice)] == [wide, narrow]


def test_no_engine_is_a_reason() -> None:
    rejected = choose_engine(conv("conv_transpose3d", 8, 8, per_channel=True))
    assert isinstance(rejected, Reject)
    assert "onednn takes transposed weights per tensor only" in str(rejected)
    assert "qnnpack gives wrong numbers for 3d transposed" in str(rejected)


@pytest.mark.parametrize("setting", ["fbgemm", "onednn", "qnnpack"])
def test_a_set_engine_is_obeyed(setting: str) -> None:
    assert engine_for(LayerFacts("linear", 8, 8), setting) == EngineChoice(
        setting, f"torch.backends.quantized.engine is {setting!r}"
    )


def test_the_setting_is_read_from_torch() -> None:
    torch.backends.quantized.engine = "onednn"
    assert engine_for(LayerFacts("linear", 8, 8)).engine == "onednn"
    torch.backends.quantized.engine = "x86"
    assert engine_for(LayerFacts("linear", 8, 8)).engine == "fbgemm"


def test_a_set_engine_is_not_given_what_it_cannot_take() -> None:
    rejected = engine_for(LayerFacts("linear", 8, 8, symmetric_weight=False), "onednn")
    assert rejected == Reject("onednn takes weights with zero point 0 only (it raises)")


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(KernelError, match="no kernel library is called 'cudnn'"):
        engine_for(LayerFacts("linear", 8, 8), "cudnn")


def test_every_entry_says_why() -> None:
    assert all(rule.why and rule.engine in ENGINES for rule in RULES)
    assert all(limit.reason and limit.engine in ENGINES for limit in LIMITS)


channels = st.sampled_from([1, 2, 3, 4, 8, 16])
layers = st.builds(
    lambda op, groups, a, b, k, s, p, pc: conv(op, groups * a, groups * b, groups, k, s, p, per_channel=pc),
    st.sampled_from([f"{kind}{dims}d" for kind in ("conv", "conv_transpose") for dims in (1, 2, 3)]),
    channels,
    channels,
    channels,
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)


@settings(deadline=None, max_examples=200)
@given(layers, st.sampled_from((*CAPABILITIES, "AVX512_AMX")))
def test_a_choice_is_deterministic_and_within_limits(layer: LayerFacts, capability: str) -> None:
    choice = choose_engine(layer, capability=capability)
    assert choice == choose_engine(replace(layer), capability=capability)
    if isinstance(choice, Reject):
        assert all(limits(layer, engine, tiles="AMX" in capability) is not None for engine in ENGINES)
    else:
        assert limits(layer, choice.engine, tiles="AMX" in capability) is None


def run(layer: LayerFacts, engine: str, *, as_we_pack: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the engine gives for random codes, and what is right."""
    dims = len(layer.kernel)
    shape = (layer.in_channels, layer.group_out) if layer.transposed else (layer.out_channels, layer.group_in)
    w = torch.randint(-100, 100, (*shape, *layer.kernel)).to(torch.int8)
    x = torch.randint(0, 128, (2, layer.in_channels, *[5] * dims)).to(torch.uint8)
    out = QParams(1.0, 120, dtype=torch.quint8)
    attrs = [layer.stride, layer.padding, layer.dilation]
    if layer.transposed:
        attrs.insert(2, layer.output_padding)
    axis, count = (1, layer.group_out) if layer.transposed else (0, layer.out_channels)
    if layer.per_channel:
        scale, zero = torch.full((count,), 0.02), torch.zeros(count, dtype=torch.int64)
        qw = torch._make_per_channel_quantized_tensor(w, scale, zero, axis)
        w_q = QParams(scale, zero, axis, torch.qint8)
    else:
        zero = 0 if layer.symmetric_weight else 3
        qw, w_q = torch._make_per_tensor_quantized_tensor(w, 0.02, zero), QParams(0.02, zero, dtype=torch.qint8)
    torch.backends.quantized.engine = engine
    packed = getattr(torch.ops.quantized, f"{layer.op}_prepack")(qw, None, *attrs, layer.groups)
    if as_we_pack:
        how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
        kind = layer.op.replace("_transpose", "")
        how |= {"output_padding": layer.output_padding, "transposed": layer.transposed, "engine": engine}
        packed = PackedSpec(kind, qw, None, **how).pack()
    qx = torch._make_per_tensor_quantized_tensor(x, 0.05, 60)
    found = getattr(torch.ops.quantized, layer.op)(qx, packed, *out.scalars()).int_repr()
    compute = partial(
        reference.conv,
        x,
        w,
        None,
        QParams(0.05, 60),
        w_q,
        out,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        transposed=layer.transposed,
        output_padding=layer.output_padding or 0,
    )
    engines = reference.onednn_roundings_here() if engine == "onednn" else (engine,)
    rights = [compute(engine=each) for each in engines]
    return found, next((right for right in rights if torch.equal(found, right)), rights[0])


@pytest.mark.parametrize(
    ("engine", "layer"),
    [
        ("onednn", conv("conv_transpose2d", 8, 4, s=2)),
        ("onednn", conv("conv_transpose1d", 16, 8, s=1)),
        ("onednn", conv("conv_transpose3d", 12, 20, groups=4)),
        ("qnnpack", conv("conv_transpose3d", 4, 4)),
    ],
)
def test_limits_of_wrong_numbers_are_still_needed(engine: str, layer: LayerFacts) -> None:
    """A torch that gets these right will fail this test: then the limit can go."""
    assert limits(layer, engine) is not None
    found, right = run(layer, engine)
    assert int((found.int() - right.int()).abs().max()) > 10


def test_the_limit_of_tiles_is_still_needed() -> None:
    """Rows of 5 columns under kernels of 3 with strides of 3 leave one column: wrong with AMX, and with it alone."""
    layer = LayerFacts("conv2d", 32, 16, kernel=(1, 3), stride=(1, 3), padding=(0, 0), dilation=(1, 1))
    wrong = 0
    for seed in range(20):
        torch.manual_seed(seed)
        found, right = run(layer, "onednn")
        wrong += int((found.int() - right.int()).abs().max()) > 1
    assert (wrong > 0) is has_tiles()


@pytest.mark.parametrize(
    ("engine", "layer", "message"),
    [
        ("onednn", conv(cin=8, cout=8, symmetric_weight=False), "only supports symmetric quantization"),
        ("onednn", conv("conv_transpose2d", 8, 8, s=2, output_padding=(1, 1)), "only supports zero output_padding"),
        ("onednn", conv("conv_transpose2d", 8, 8, per_channel=True), "Per Channel Quantization is currently disabled"),
        ("fbgemm", conv("conv_transpose2d", 8, 8, per_channel=True), "Per Channel Quantization is currently disabled"),
    ],
)
def test_limits_of_errors_are_still_needed(engine: str, layer: LayerFacts, message: str) -> None:
    assert limits(layer, engine) is not None
    with pytest.raises(RuntimeError, match=message):
        run(layer, engine)


def test_the_limit_that_ends_the_process_is_still_needed() -> None:
    program = """if True:
        import torch, warnings
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "onednn"
        w = torch._make_per_tensor_quantized_tensor(torch.zeros(8, 0, dtype=torch.int8), 1.0, 0)
        x = torch._make_per_tensor_quantized_tensor(torch.zeros(3, 0, dtype=torch.uint8), 1.0, 0)
        torch.ops.quantized.linear(x, torch.ops.quantized.linear_prepack(w, None), 1.0, 0)
    """
    assert limits(LayerFacts("linear", 0, 8), "onednn") is not None
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120).returncode < 0


@pytest.mark.parametrize(
    "layer",
    [
        conv("conv_transpose2d", 16, 8, k=2, s=2, p=0),
        conv("conv_transpose2d", 8, 4, s=2),
        conv("conv_transpose2d", 8, 8, k=2, s=2, p=0),
        conv("conv_transpose3d", 4, 6, s=2),
        conv("conv_transpose2d", 8, 6, per_channel=True),
        conv("conv_transpose1d", 8, 8, s=2, output_padding=(1,)),
        conv(cin=96, cout=96, groups=96, s=2, p=0),
        conv(cin=32, groups=32),
        conv(groups=32),
        conv(cin=66, cout=66, groups=11),
        conv("conv3d", 8, 8, groups=8),
        conv(cin=1, cout=32, k=2, p=2),
        conv(cin=1, cout=32),
    ],
)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_chosen_engine_is_right(layer: LayerFacts, capability: str) -> None:
    choice = choose_engine(layer, capability=capability)
    assert isinstance(choice, EngineChoice)
    found, right = run(layer, choice.engine, as_we_pack=True)
    assert torch.equal(found, right)


@pytest.mark.parametrize("channels", [(8, 8), (16, 8), (3, 5)])
@pytest.mark.parametrize("how", [{}, {"s": 1}, {"dilation": (1, 3)}, {"kernel": (2, 3)}])
def test_fbgemms_direct_kernel_is_never_reached(channels: tuple[int, int], how: dict[str, object]) -> None:
    layer = conv("conv_transpose2d", *channels, **{"k": 2, "s": 2, "p": 0, **how})  # type: ignore[arg-type]
    assert reaches_direct_kernel(layer.kernel, layer.padding, layer.groups)
    found, right = run(layer, "fbgemm", as_we_pack=True)
    assert torch.equal(found, right)


def test_fbgemms_direct_kernel_is_still_wrong() -> None:
    """A torch that gets this right will fail this test: then weights need not be widened."""
    found, right = run(conv("conv_transpose2d", 8, 8, k=2, s=2, p=0), "fbgemm")
    assert int((found.int() - right.int()).abs().max()) > 10
