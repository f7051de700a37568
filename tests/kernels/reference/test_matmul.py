"""Convolutions and linear layers: equal to every engine's kernel, code by code."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from qfx.errors import KernelError
from qfx.kernels import reference
from qfx.kernels.engines import LayerFacts, limits
from qfx.qparams import QParams

ENGINES = ("fbgemm", "onednn", "qnnpack")
OPS = torch.ops.quantized
VNNI = torch.cpu._is_vnni_supported() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@dataclass
class Layer:
    """A layer with codes of its own, drawn from ``rng``."""

    rng: random.Random
    op: str
    x_shape: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...] = ()
    groups: int = 1
    per_channel: bool = False
    bias: bool = True
    act_codes: tuple[int, int] = (0, 127)
    weight_zero_point: int = 0
    attrs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = self.act_codes
        transposed = "transpose" in self.op
        outer, inner = self.out_channels, self.x_shape[1] // self.groups
        if transposed:
            outer, inner = self.x_shape[1], self.out_channels // self.groups
        self.x = torch.randint(low, high + 1, self.x_shape).to(torch.uint8)
        self.w = torch.randint(-128, 128, (outer, inner, *self.kernel)).to(torch.int8)
        self.b = torch.randn(self.out_channels) if self.bias else None
        axis = 1 if transposed else 0
        channels = self.w.shape[axis]
        scale = torch.rand(channels) * 0.01 + 0.001 if self.per_channel else self.rng.uniform(0.001, 0.01)
        zero = torch.full((channels,), self.weight_zero_point) if self.per_channel else self.weight_zero_point
        self.w_q = QParams(scale, zero, axis if self.per_channel else None, torch.qint8)
        self.x_q = QParams(self.rng.uniform(0.01, 0.1), self.rng.choice((0, high, high // 2)), dtype=torch.quint8)
        spread = float(self.x_q.scale) * 0.005 * 70 * 64 * max(1, inner * int(torch.tensor(self.kernel).prod())) ** 0.5
        self.out = QParams(spread / 100, self.rng.choice((0, 128, 255, 77)), dtype=torch.quint8)

    @property
    def facts(self) -> LayerFacts:
        return LayerFacts(
            self.op,
            self.x_shape[1],
            self.out_channels,
            groups=self.groups,
            kernel=self.kernel,
            **self.attrs,
            per_channel=self.per_channel,
            symmetric_weight=self.weight_zero_point == 0,
            act_codes=self.act_codes,
        )

    def expected(self, wrap, using, engine: str, relu: bool = False) -> Tensor:
        with using(engine):
            prepack = getattr(OPS, f"{self.op}_prepack")
            w = wrap(self.w, self.w_q)
            if self.op == "linear":
                packed = prepack(w, self.b)
            else:
                order = ("stride", "padding", "output_padding", "dilation")
                packed = prepack(w, self.b, *(self.attrs[k] for k in order if k in self.attrs), self.groups)
        # the engine was only set while packing: packed weights run in graphs of any engine
        run = getattr(OPS, f"{self.op}_relu" if relu else self.op)
        scale, zero_point = self.out.scalars()
        return run(wrap(self.x, self.x_q), packed, scale, zero_point).int_repr()

    def is_computed(self, expected: Tensor, engine: str, relu: bool = False) -> bool:
        """Whether these are the codes the reference computes; with AMX onednn rounds in one of two ways."""
        engines = reference.onednn_roundings_here() if engine == "onednn" else (engine,)
        return any(torch.equal(self.computed(each, relu), expected) for each in engines)

    def computed(self, engine: str, relu: bool = False) -> Tensor:
        args = (self.x, self.w, self.b, self.x_q, self.w_q, self.out)
        if self.op == "linear":
            return reference.linear(*args, relu=relu, engine=engine)
        transposed = "transpose" in self.op
        return reference.conv(*args, **self.attrs, groups=self.groups, transposed=transposed, relu=relu, engine=engine)


def random_conv(rng: random.Random, transposed: bool, **fixed) -> Layer:
    """Any convolution: dimensions, groups, stride, padding, dilation, channels, bias or not."""
    while True:
        dims = rng.choice((1, 2, 2, 3))
        groups = rng.choice((1, 1, 2, 3, 8))
        kernel = tuple(rng.choice((1, 2, 3) if dims == 3 else (1, 2, 3, 5)) for _ in range(dims))
        attrs = {
            "stride": tuple(rng.choice((1, 2, 3)) for _ in range(dims)),
            "padding": tuple(rng.choice((0, 1, 2)) for _ in range(dims)),
            "dilation": (rng.choice((1, 1, 2)),) * dims,
        }
        if transposed:
            extra = rng.choice((0, 0, 1))
            attrs["output_padding"] = tuple(extra if s > 1 else 0 for s in attrs["stride"])
        size = tuple(rng.choice((5, 6, 9)) for _ in range(dims))
        reach = [d * (k - 1) + 1 for d, k in zip(attrs["dilation"], kernel, strict=True)]
        room = [
            (n - 1) * s - 2 * p + r if transposed else n + 2 * p - r
            for n, s, p, r in zip(size, attrs["stride"], attrs["padding"], reach, strict=True)
        ]
        if min(room) < 1:
            continue
        x_shape = (rng.choice((1, 2)), groups * rng.choice((1, 2, 3, 8)), *size)
        op = f"conv_transpose{dims}d" if transposed else f"conv{dims}d"
        out_channels = groups * rng.choice((1, 2, 5, 8))
        options = {"bias": rng.random() < 0.7, "per_channel": not transposed and rng.random() < 0.5, **fixed}
        return Layer(rng, op, x_shape, out_channels, kernel, groups, attrs=attrs, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("transposed", [False, True])
def test_random_convolutions(rng, wrap, using, engine: str, transposed: bool) -> None:
    checked = 0
    for _ in range(40):
        layer = random_conv(rng, transposed)
        if limits(layer.facts, engine) is not None:
            continue
        relu = not transposed and rng.random() < 0.5
        assert layer.is_computed(layer.expected(wrap, using, engine, relu), engine, relu), layer.facts
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("engine", ENGINES)
def test_random_linear(rng, wrap, using, engine: str) -> None:
    for _ in range(20):
        rows, inner, outer = rng.choice((1, 3, 8)), rng.choice((1, 2, 17, 64, 200)), rng.choice((1, 3, 16, 33))
        layer = Layer(
            rng,
            "linear",
            (rows, inner),
            outer,
            per_channel=rng.random() < 0.5,
            bias=rng.random() < 0.7,
            act_codes=(0, 255) if VNNI else (0, 127),
        )
        relu = rng.random() < 0.5
        assert layer.is_computed(layer.expected(wrap, using, engine, relu), engine, relu), layer.facts


@pytest.mark.skipif(not VNNI, reason="without VNNI 8-bit codes overflow 16-bit sums: see test_overflow.py")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fill", [0, 255, None])
def test_extreme_8_bit_values(rng, wrap, using, engine: str, fill: int | None) -> None:
    attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    layer = Layer(rng, "conv2d", (2, 16, 6, 6), 11, (3, 3), per_channel=True, act_codes=(0, 255), attrs=attrs)
    if fill is not None:
        layer.x.fill_(fill)
        layer.w.fill_(127 if fill else -128)
    assert layer.is_computed(layer.expected(wrap, using, engine), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("x_scale", [1e-6, 0.05, 1e5])
@pytest.mark.parametrize("out_scale", [1e-20, 1e-9, 1e-3, 1e3, 1e20])
def test_tiny_and_huge_scales(wrap, using, engine: str, x_scale: float, out_scale: float) -> None:
    """Sums beyond int32 included: fbgemm and qnnpack then give the lowest code, onednn the highest."""
    layer = Layer(random.Random(0), "linear", (4, 64), 16, act_codes=(0, 127))
    layer.x_q = QParams(x_scale, 60, dtype=torch.quint8)
    layer.out = QParams(out_scale, 100, dtype=torch.quint8)
    assert layer.is_computed(layer.expected(wrap, using, engine), engine)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_weights_with_a_zero_point(rng, wrap, using, engine: str) -> None:
    for per_channel in (False, True):
        layer = Layer(rng, "linear", (4, 32), 9, per_channel=per_channel, weight_zero_point=3)
        assert layer.is_computed(layer.expected(wrap, using, engine), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("op", ["linear", "conv2d"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_constructed_ties(rng, wrap, using, engine: str, op: str, per_channel: bool, bias: bool) -> None:
    """Scales chosen so that each sum times its scale is one float32 rounding from a half: every rounding shows."""
    outer = 64
    shape, kernel, attrs = ((1, 16), (), {}) if op == "linear" else ((1, 16, 1, 1), (1, 1), _plain(2))
    layer = Layer(rng, op, shape, outer, kernel, per_channel=per_channel, bias=bias, attrs=attrs)
    acc = ((layer.x.double().reshape(1, -1) - layer.x_q.zero_point) @ layer.w.double().reshape(outer, -1).T)[0]
    acc = torch.where(acc == 0, 1.0, acc)
    x_scale, out_scale = float(layer.x_q.scale), rng.uniform(0.01, 0.5)
    halves = torch.randint(0, 60, (outer,)).double() + 0.5
    offset = torch.zeros(outer) if layer.b is None else layer.b * out_scale
    layer.b = offset if bias else None
    scales = ((halves * out_scale - offset.double() * acc.sign()) / (acc.abs() * x_scale)).abs().clamp_min(1e-6).float()
    layer.w_q = QParams(scales if per_channel else float(scales[0]), 0, 0 if per_channel else None, torch.qint8)
    layer.out = QParams(out_scale, 100, dtype=torch.quint8)
    if per_channel:
        layer.w_q = QParams(scales, torch.zeros(outer, dtype=torch.int64), 0, torch.qint8)
    assert layer.is_computed(layer.expected(wrap, using, engine), engine)


def test_fbgemm_and_onednn_differ_at_ties_only(rng, wrap, using) -> None:
    """They round at different places: about one code in 100,000 differs, by one."""
    layer = Layer(rng, "linear", (200, 64), 300, per_channel=True, act_codes=(0, 127))
    difference = (layer.computed("fbgemm").int() - layer.computed("onednn").int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-3


def test_clamp_is_in_codes_and_default_saturation_is_the_stored_type(rng) -> None:
    layer = Layer(rng, "linear", (8, 64), 16)
    layer.out = QParams(1e-4, 0, dtype=torch.quint8, quant_min=0, quant_max=127)
    args = (layer.x, layer.w, layer.b, layer.x_q, layer.w_q, layer.out)
    assert int(reference.linear(*args).max()) == 255
    assert int(reference.linear(*args, clamp=(0, 127)).max()) == 127


def test_an_unknown_engine_is_an_error(rng) -> None:
    with pytest.raises(KernelError, match="no kernel library is called 'x86'"):
        Layer(rng, "linear", (1, 2), 2).computed("x86")


def _plain(dims: int) -> dict[str, tuple[int, ...]]:
    return {"stride": (1,) * dims, "padding": (0,) * dims, "dilation": (1,) * dims}
