"""A converted model gives the same codes whatever quantized engine is set when it runs, and when it was converted."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.kernels import codes

ENGINES = [
    name for name in ("x86", "fbgemm", "onednn", "qnnpack") if name in torch.backends.quantized.supported_engines
]
SHAPES = {1: (2, 4, 9), 2: (2, 4, 8, 8), 3: (2, 4, 5, 6, 7)}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
pytestmark = pytest.mark.filterwarnings("ignore:Quantized Adaptive Average Pool 3D is not implemented for QNNPACK")
FILTER = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Net(nn.Module):
    """A layer, some op, a layer."""

    def __init__(self, dims: int, function: Callable[[Any, Any], Any], channels: int = 4) -> None:
        super().__init__()
        conv: Any = getattr(nn, f"Conv{dims}d")
        self.a, self.b = conv(4, 4, 1), conv(channels, 4, 1)
        self.a.weight.data *= 12
        self.function = function
        self.relu6, self.tanh, self.pool = nn.ReLU6(), nn.Hardtanh(-1.5, 2.0), nn.MaxPool3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.function(self, self.a(x)))


# What torch leaves to the engine, with the codes that may differ: none, or one where qnnpack rounds by another rule.
CASES: dict[str, tuple[int, Callable[[Any, Any], Any], int]] = {
    "relu6 after a layer": (2, lambda m, y: m.relu6(y), 0),
    "hardtanh after a layer": (2, lambda m, y: m.tanh(y), 0),
    "one bound": (2, lambda m, y: torch.clamp(y, max=0.7), 0),
    "lower bound": (2, lambda m, y: y.clamp(min=-0.7), 0),
    "1d": (1, lambda m, y: F.relu6(y), 0),
    "3d": (3, lambda m, y: F.relu6(y), 0),
    "relu6 of a pool": (2, lambda m, y: F.relu6(F.avg_pool2d(y, 2)), 1),
    "module of a pool": (2, lambda m, y: m.relu6(F.max_pool2d(y, 2)), 0),
    "hardtanh of a pool": (2, lambda m, y: F.hardtanh(F.max_pool2d(y, 2), -0.5, 0.7), 0),
    "clamp of a pool": (2, lambda m, y: torch.clamp(F.max_pool2d(y, 2), -0.5), 0),
    "clamp of a pool 3d": (3, lambda m, y: torch.clamp(F.avg_pool3d(y, 2), -0.5, 1.0), 0),
    "relu of a pool": (2, lambda m, y: F.relu(F.max_pool2d(y, 2)), 0),
    "max pool": (2, lambda m, y: F.max_pool2d(y, 3, 2, 1), 0),
    "max pool, dilated and padded": (2, lambda m, y: F.max_pool2d(y, 3, 1, 1, 2), 0),
    "max pool, dilated and padded 1d": (1, lambda m, y: F.max_pool1d(y, 3, 1, 1, 2), 0),
    "max pool of one place": (2, lambda m, y: F.max_pool2d(y, 1, 2), 0),
    "max pool 3d": (3, lambda m, y: m.pool(y), 0),
    "average pool": (2, lambda m, y: F.avg_pool2d(y, 3, 2, 1), 1),
    "average without padding": (2, lambda m, y: F.avg_pool2d(y, 3, 2, 1, False, False), 0),
    "average without padding 1d": (1, lambda m, y: F.avg_pool1d(y, 3, 2, 1, False, False), 0),
    "average by a divisor": (2, lambda m, y: F.avg_pool2d(y, 2, divisor_override=3), 0),
    "average of one place": (2, lambda m, y: F.avg_pool2d(y, 1, 2), 0),
    "adaptive": (2, lambda m, y: F.adaptive_avg_pool2d(y, (3, 2)), 1),
    "adaptive 3d": (3, lambda m, y: F.adaptive_avg_pool3d(y, 2), 1),
    "mean": (2, lambda m, y: y.mean([2, 3], keepdim=True), 1),
    "add": (2, lambda m, y: y + F.relu(y), 1),
    "add a number, relu6": (2, lambda m, y: F.relu6(y + 1.5), 1),
    "mul relu6": (2, lambda m, y: F.relu6(y * y), 1),
    "cat": (2, lambda m, y: torch.cat([y, F.relu6(y)], 1)[:, 2:6], 1),
    "sigmoid": (2, lambda m, y: torch.sigmoid(y), 1),
    "clamped sigmoid": (2, lambda m, y: torch.clamp(torch.sigmoid(y), max=0.7), 1),
    "tanh": (2, lambda m, y: torch.tanh(y), 1),
    "hardsigmoid": (2, lambda m, y: F.hardsigmoid(y), 1),
    "hardswish": (2, lambda m, y: F.hardswish(y), 1),
    "elu": (2, lambda m, y: F.elu(y), 1),
    "leaky relu, hardtanh": (2, lambda m, y: F.hardtanh(F.leaky_relu(y, 0.2), -0.2, 0.9), 1),
    "batch norm": (2, lambda m, y: F.batch_norm(y.relu(), torch.zeros(4), torch.ones(4)), 1),
    "nearest": (2, lambda m, y: F.interpolate(y, scale_factor=2), 0),
    "linear": (1, lambda m, y: F.interpolate(y, scale_factor=2, mode="linear"), 1),
    "linear to a size": (1, lambda m, y: F.interpolate(y, 7, mode="linear", align_corners=True), 1),
    "nearest in one dimension": (1, lambda m, y: F.interpolate(y, scale_factor=2.5), 0),
    "nearest-exact in one dimension": (1, lambda m, y: F.interpolate(y, 7, mode="nearest-exact"), 0),
    "nearest-exact": (2, lambda m, y: F.interpolate(y, scale_factor=1.5, mode="nearest-exact"), 0),
    "bilinear": (2, lambda m, y: F.interpolate(y, scale_factor=2, mode="bilinear"), 1),
    "pad": (2, lambda m, y: F.pad(y, (1, 1), value=0.5), 0),
    "chunk": (2, lambda m, y: (lambda parts: torch.cat([parts[1], parts[0]], 1))(y.chunk(2, 1)), 0),
}


def prepared(name: str) -> tuple[qfx.ObservedGraphModule, torch.Tensor]:
    dims, function, _ = CASES[name]
    x = torch.randn(SHAPES[dims])
    made = qfx.prepare_fx(Net(dims, function).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    made(x)
    return made, x


def layouts(x: torch.Tensor) -> list[torch.Tensor]:
    dims = x.dim() - 2
    return [x, x.contiguous(memory_format=FORMATS[dims])] if dims in FORMATS else [x]


def inner(gm: torch.fx.GraphModule, x: torch.Tensor) -> torch.Tensor:
    """The codes that enter the last layer: what comes after it would hide a code, or blow it up."""
    last = [n for n in gm.graph.nodes if n.meta.get("qfx_kernel", "").startswith("quantized.conv")][-1]
    found: list[torch.Tensor] = []
    gm.get_submodule(str(last.target)).register_forward_pre_hook(lambda _, args: found.append(args[0].int_repr()))
    gm(x)
    return found[0].int()


@pytest.mark.parametrize("name", CASES)
def test_the_engine_set_at_run_time_changes_nothing(name: str) -> None:
    made, x = prepared(name)
    int8 = qfx.convert_fx(made, strict=name != "batch norm")
    for data in (*layouts(x), 2 * x):
        torch.backends.quantized.engine = ENGINES[0]
        expected = inner(copy.deepcopy(int8), data)
        for engine in ENGINES[1:]:
            torch.backends.quantized.engine = engine
            found = inner(pickle.loads(pickle.dumps(int8)), data)
            assert int((found - expected).abs().max()) <= CASES[name][2], (engine, data.stride())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_an_engine_set_before_converting_computes_what_the_reference_says(name: str, engine: str) -> None:
    made, x = prepared(name)
    reference = qfx.convert_to_reference_fx(made)
    torch.backends.quantized.engine = engine
    int8 = qfx.convert_fx(made)
    step = max(float(v) for k, v in reference.named_buffers() if "_scale_" in k and v.dim() == 0)
    for data in layouts(x):
        # Two codes: one of the op, amplified by the layer behind it, and one of that.
        assert float((int8(data) - reference(data)).abs().max()) <= 4 * step
        assert float((int8(data) - reference(data)).abs().mean()) <= 0.5 * step


def test_only_what_engines_get_wrong_is_a_function_of_ours() -> None:
    own = {codes.clamp, codes.avg_pool, codes.max_pool}
    for name, expected in (
        ("max pool", set()),
        ("average pool", set()),
        ("relu of a pool", set()),
        ("relu6 of a pool", {codes.clamp}),
        ("max pool 3d", {codes.max_pool}),
        ("average by a divisor", {codes.avg_pool}),
    ):
        made, _ = prepared(name)
        graph = qfx.convert_fx(made).graph
        assert {n.target for n in graph.nodes if n.target in own} == expected


@FILTER
@pytest.mark.filterwarnings("ignore:.*instance-level annotations:UserWarning")  # of torch's own GraphModule
@pytest.mark.parametrize("name", ["relu6 after a layer", "clamp of a pool", "max pool 3d", "average by a divisor"])
def test_graphs_with_them_script_trace_again_and_pickle(name: str) -> None:
    made, x = prepared(name)
    int8 = qfx.convert_fx(made)
    expected = int8(x)
    again = torch.fx.GraphModule(int8, torch.fx.Tracer().trace(int8))
    for other in (torch.jit.script(int8), again, pickle.loads(pickle.dumps(int8))):
        for engine in ENGINES:
            torch.backends.quantized.engine = engine
            assert torch.equal(other(x), expected)


def test_the_models_of_the_report() -> None:
    """A layer with a large range before its relu6, and a clamp in channels last."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)).eval()
    model[0].weight.data *= 20
    x = torch.randn(2, 3, 8, 8)
    made = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    made(x)
    int8 = qfx.convert_fx(made)
    expected = int8(x)
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        assert torch.equal(int8(x), expected)


def test_bounds_that_are_computed_stay_float_and_say_why() -> None:
    class Computed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.clamp(x, max=x.amax())

    x = torch.randn(2, 4)
    made = qfx.prepare_fx(Computed().eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    made(x)
    int8 = qfx.convert_fx(made)
    assert torch.allclose(int8(x), x, atol=0.05)
    assert any("the bounds of clamp are tensors" in reason for reason in qfx.explain(int8)["clamp"].reasons)


def test_a_sigmoid_of_other_parameters_stays_float() -> None:
    """qnnpack's kernel ends the run there; the default has the parameters every kernel takes."""
    own = qfx.get_default_qconfig("x86")
    backend = qfx.BackendConfig("any").set_backend_pattern_config(
        qfx.BackendPatternConfig(torch.sigmoid)
        .set_observation_type(qfx.ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT)
        .add_dtype_config(qfx.DTypeConfig(torch.quint8, torch.quint8))
    )

    class Sigmoid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x)

    x = torch.randn(2, 4)
    mapping = qfx.QConfigMapping().set_global(own)
    made = qfx.prepare_fx(Sigmoid().eval(), mapping, (x,), backend_config=backend)
    made(x)
    int8 = qfx.convert_fx(made)
    assert any("gives scale 0.00390625 and zero point 0 only" in r for r in qfx.explain(int8)["sigmoid"].reasons)
    torch.backends.quantized.engine = ENGINES[-1]
    assert torch.allclose(int8(x), torch.sigmoid(x), atol=0.05)


def test_any_number_of_clamps_may_follow_a_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3), nn.Hardtanh(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.8), nn.ReLU(), nn.AvgPool2d(2)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    for target in ("native", "onednn"):
        int8 = qfx.convert_fx(prepared, target=target, strict=True)
        assert (int8(x) - model(x)).abs().max() < 0.05
