"""Kernel objects: what they take, and that every one says in integers what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qfx import ops
from qfx.kernels import LayerFacts
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.kernels.native import NATIVE
from qfx.kernels.packing import PackedSpec
from qfx.kernels.reference import onednn_roundings_here
from qfx.kernels.weighted import WEIGHTED, layer_facts
from qfx.qparams import QParams

X = QParams(0.05, 60, dtype=torch.quint8)
Y = QParams(0.03, 90, dtype=torch.quint8)
OUT = QParams(0.07, 100, dtype=torch.quint8)


def codes(*shape: int) -> torch.Tensor:
    found = torch.randint(0, 256, shape, dtype=torch.uint8)
    found.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)
    return found


def wrap(stored: torch.Tensor, q: QParams) -> torch.Tensor:
    return torch._make_per_tensor_quantized_tensor(stored, *q.scalars())


def called(kernel: Kernel, x: torch.Tensor, **attrs: Any) -> torch.Tensor:
    return kernel.call(*kernel.arrange(wrap(x, X), *OUT.scalars(), attrs)).int_repr()


def _binary(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = codes(2, 3, 5, 7), codes(2, 3, 5, 7)
    return kernel.call(wrap(x, X), wrap(y, Y), *OUT.scalars()).int_repr(), kernel.reference(x, y, X, Y, OUT)


def _function(**attrs: Any) -> Callable[[Kernel], tuple[torch.Tensor, torch.Tensor]]:
    def compare(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        x = codes(4, 64)
        return called(kernel, x, **attrs), kernel.reference(x, X, OUT, **attrs)

    return compare


def _float_op(function: Any, shape: tuple[int, ...], *more: Any) -> Callable[[Kernel], tuple[Any, Any]]:
    """A kernel reached by the float op's own call on a quantized tensor."""

    def compare(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        x = codes(*shape)
        return function(wrap(x, X)).int_repr(), kernel.reference(x, X, *more)

    return compare


def _clamp(low: float | None, high: float | None, **attrs: Any) -> Callable[[Kernel], tuple[Any, Any]]:
    def compare(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        x = codes(4, 64)
        return called(kernel, x, **attrs), kernel.reference(x, X, low, high)

    return compare


def _max_pool(n: int) -> Callable[[Kernel], tuple[Any, Any]]:
    def compare(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        x = codes(2, 3, *[6] * n)
        return getattr(F, f"max_pool{n}d")(wrap(x, X), 2).int_repr(), kernel.reference(x, 2)

    return compare


def _norm(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, parameters = codes(2, 4, 3, 3), [torch.rand(4) + 0.5 for _ in range(4)]
    gamma, beta, mean, var = parameters
    found = kernel.call(wrap(x, X), gamma, beta, mean, var, 1e-5, *OUT.scalars()).int_repr()
    return found, kernel.reference(x, X, OUT, gamma, beta, mean, var, 1e-5)


def _layer_norm(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, gamma, beta = codes(6, 16), torch.rand(16) + 0.5, torch.randn(16)
    found = kernel.call(wrap(x, X), [16], gamma, beta, 1e-5, *OUT.scalars()).int_repr()
    return found, kernel.reference(x, [16], X, OUT, gamma, beta, 1e-5)


def _instance_norm(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, gamma, beta = codes(2, 4, 5, 6), torch.rand(4) + 0.5, torch.randn(4)
    found = kernel.call(wrap(x, X), gamma, beta, 1e-5, *OUT.scalars()).int_repr()
    return found, kernel.reference(x, X, OUT, gamma, beta, 1e-5)


def _prelu(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, slopes = codes(2, 4, 5), torch.quantize_per_tensor(torch.rand(4) - 0.3, 0.004, 90, torch.quint8)
    return kernel.call(wrap(x, X), slopes, *OUT.scalars()).int_repr(), kernel.reference(x, X, OUT, slopes.dequantize())


def _cat(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = codes(2, 3, 4), codes(2, 3, 4)
    return kernel.call([wrap(x, X), wrap(y, Y)], 1, *OUT.scalars()).int_repr(), kernel.reference([x, y], [X, Y], OUT, 1)


def _bilinear(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x = codes(1, 2, 4, 4)
    found = F.interpolate(wrap(x, X), size=(7, 7), mode="bilinear").int_repr()
    return found, kernel.reference(x, X, (7, 7))


def _roll(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    x, how = codes(2, 3, 5, 7), ((1, -3), (1, 3))
    return called(kernel, x, shifts=how[0], dims=how[1]), kernel.reference(x, X, *how)


def _adaptive_max(*size: int | None) -> Callable[[Kernel], tuple[torch.Tensor, torch.Tensor]]:
    def case(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
        x = codes(*SHAPES[len(size)])
        return called(kernel, x, output_size=size), kernel.reference(x, size)

    return case


SHAPES = {1: (2, 3, 8), 2: (2, 3, 6, 8), 3: (2, 3, 4, 6, 8)}
CASES: dict[str, Callable[[Kernel], tuple[torch.Tensor, torch.Tensor]]] = {
    "add": _binary,
    "mul": _binary,
    "sigmoid": _function(),
    "tanh": _float_op(torch.tanh, (4, 64)),
    "hardsigmoid": _float_op(F.hardsigmoid, (4, 64)),
    "hardswish": _function(),
    "elu": _function(alpha=0.7),
    "leaky_relu": _function(negative_slope=0.1),
    "batch_norm": _norm,
    "layer_norm": _layer_norm,
    "instance_norm": _instance_norm,
    "prelu": _prelu,
    "cat": _cat,
    "relu": _float_op(F.relu, (4, 64)),
    "relu6": _clamp(0.0, 6.0),
    "hardtanh": _clamp(-0.5, 0.8, min_val=-0.5, max_val=0.8),
    "clamp": _clamp(None, 0.8, min=None, max=0.8),
    **{f"max_pool{n}d": _max_pool(n) for n in (1, 2, 3)},
    "avg_pool1d": _float_op(lambda x: F.avg_pool1d(x, 2), SHAPES[1], 2),
    "avg_pool2d": _float_op(lambda x: F.avg_pool2d(x, 2), SHAPES[2], 2),
    "avg_pool3d": _float_op(lambda x: F.avg_pool3d(x, 2), SHAPES[3], 2),
    "adaptive_avg_pool1d": _float_op(lambda x: F.adaptive_avg_pool1d(x, 3), SHAPES[1], 3),
    "adaptive_avg_pool2d": _float_op(lambda x: F.adaptive_avg_pool2d(x, (3, 2)), SHAPES[2], (3, 2)),
    "adaptive_avg_pool3d": _float_op(lambda x: F.adaptive_avg_pool3d(x, 2), SHAPES[3], 2),
    "adaptive_max_pool1d": _adaptive_max(3),
    "adaptive_max_pool2d": _adaptive_max(3, None),
    "adaptive_max_pool3d": _adaptive_max(1, 4, 5),
    "mean": _float_op(lambda x: x.mean([2, 3]), SHAPES[2], [2, 3]),
    "pad": _float_op(lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), SHAPES[2], (1, 2, 0, 1), 0.5),
    "interpolate": _bilinear,
    "roll": _roll,
}


def test_every_kernel_is_compared_and_is_an_op() -> None:
    assert set(CASES) == set(NATIVE)
    assert set(NATIVE) | set(WEIGHTED) <= set(ops.REGISTRY)


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_computes_what_its_reference_says(name: str) -> None:
    for _ in range(5):
        found, expected = CASES[name](NATIVE[name])
        assert torch.equal(found, expected)


@pytest.mark.parametrize("op", WEIGHTED)
def test_a_weighted_kernel_packs_and_computes_what_its_reference_says(op: str) -> None:
    dims = 0 if op == "linear" else int(op[-2])
    shape = (8, 8, *[3] * dims)
    ones = (1,) * dims
    attrs = {"stride": ones, "padding": ones, "dilation": ones, "groups": 1, "output_padding": (0,) * dims}
    layer = layer_facts(op, shape, attrs, per_channel=False, symmetric=True)
    site = KernelSite(op, attrs, OUT.scalars(), layer, torch.qint8)
    kernel = WEIGHTED[op]
    assert kernel.supports(site) is None
    weight = torch.randint(-128, 128, shape, dtype=torch.int8)
    packed = kernel.pack(site, torch._make_per_tensor_quantized_tensor(weight, 0.02, 0), None)
    assert isinstance(packed, PackedSpec)
    x = torch.randint(0, 128, (2, 8, *[6] * dims), dtype=torch.uint8)
    found = kernel.call(wrap(x, X), packed.pack(), *OUT.scalars()).int_repr()
    w = QParams(0.02, 0, dtype=torch.qint8)
    how: dict[str, Any] = {}
    if dims:
        how |= {"stride": ones, "padding": ones, "dilation": ones, "groups": 1}
        how |= {"transposed": True} if "transpose" in op else {}
    engines = onednn_roundings_here() if packed.engine == "onednn" else (packed.engine,)
    expected = [kernel.reference(x, weight, None, X, w, OUT, engine=engine, **how) for engine in engines]
    assert any(torch.equal(found, each) for each in expected)


FACTS = LayerFacts("conv2d", 8, 8, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))


@pytest.mark.parametrize(
    ("kernel", "site", "reason"),
    [
        (
            NATIVE["tanh"],
            KernelSite("tanh", {}, (0.1, 3)),
            "the kernel of tanh gives scale 0.0078125 and zero point 128",
        ),
        (NATIVE["pad"], KernelSite("pad", {"mode": "circular"}), "no quantized kernel pads by 'circular'"),
        (
            NATIVE["interpolate"],
            KernelSite("interpolate", {"mode": "area"}),
            "no quantized kernel interpolates by 'area'",
        ),
        (NATIVE["batch_norm"], KernelSite("batch_norm", missing=("mean",)), "the kernel of batch norm needs mean"),
        (
            NATIVE["layer_norm"],
            KernelSite("layer_norm", computed=("gamma",)),
            "gamma of layer_norm must be constants, and here they are computed",
        ),
        (
            WEIGHTED["conv2d"],
            KernelSite("conv2d", layer=FACTS, weight_dtype=torch.quint8),
            "the kernels take weights of torch.qint8, not torch.quint8",
        ),
        (
            WEIGHTED["conv2d"],
            KernelSite("conv2d", {"padding_mode": "circular"}, layer=FACTS, weight_dtype=torch.qint8),
            "no kernel pads by 'circular'",
        ),
        (
            WEIGHTED["conv2d"],
            KernelSite("conv2d", weight_dtype=torch.qint8),
            "the kernels pad both sides alike; this 'same' padding does not",
        ),
    ],
)
def test_what_a_kernel_does_not_take_has_a_reason(kernel: Kernel, site: KernelSite, reason: str) -> None:
    refused = kernel.supports(site)
    assert refused is not None
    assert str(refused).startswith(reason)


MAX = {"stride": None, "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
MAX3 = {"kernel_size": (2, 2, 2), "stride": (1, 2, 2), "padding": (1, 0, 1), "dilation": (1, 1, 1)}
AVERAGE = {"stride": (2, 2), "padding": (0, 0), "ceil_mode": False, "count_include_pad": True, "divisor_override": None}


@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
@pytest.mark.parametrize(
    ("op", "attrs", "own"),
    [
        ("max_pool2d", MAX | {"kernel_size": (2, 2)}, True),
        ("max_pool2d", MAX | {"kernel_size": (3, 3), "padding": (1, 1)}, True),
        ("max_pool2d", MAX | {"kernel_size": (2, 2), "dilation": (1, 2)}, True),
        ("max_pool2d", MAX | {"kernel_size": (3, 3), "padding": (1, 0), "dilation": (2, 2)}, False),
        ("max_pool2d", MAX | {"kernel_size": (1, 1), "stride": (2, 2)}, False),
        ("max_pool3d", MAX3, False),
        ("avg_pool2d", AVERAGE | {"kernel_size": (3, 3), "padding": (1, 1)}, True),
        ("avg_pool2d", AVERAGE | {"kernel_size": (3, 3), "padding": (1, 1), "count_include_pad": False}, False),
        ("avg_pool2d", AVERAGE | {"kernel_size": (3, 3), "count_include_pad": False}, True),
        ("avg_pool2d", AVERAGE | {"kernel_size": (2, 2), "divisor_override": 3}, False),
        ("avg_pool2d", AVERAGE | {"kernel_size": (1, 1)}, False),
    ],
)
def test_pools_that_no_engine_may_do_have_a_function(op: str, attrs: dict[str, Any], own: bool, engine: str) -> None:
    kernel = NATIVE[op]
    assert (kernel.function(KernelSite(op, attrs)) is None) is own
    torch.backends.quantized.engine = engine
    x = codes(2, 3, 5, 6, 7) if op == "max_pool3d" else codes(2, 3, 6, 7)
    attrs = {"ceil_mode": False} | attrs
    steps = attrs["stride"] or attrs["kernel_size"]
    if op.startswith("max"):
        expected = kernel.reference(x, attrs["kernel_size"], steps, attrs["padding"], attrs["dilation"])
    else:
        how = {name: attrs[name] for name in ("count_include_pad", "divisor_override")}
        expected = kernel.reference(x, X, attrs["kernel_size"], steps, attrs["padding"], **how)
    if own:
        arguments = kernel.arrange(wrap(x, X), None, None, attrs)
        found = getattr(F, op)(*arguments).int_repr()
    else:
        found = called(kernel, x, **attrs)
    assert torch.equal(found, expected)


def test_attributes_that_are_computed_are_left_to_the_op() -> None:
    """What a kernel is not told, it cannot refuse."""
    unknown = object()
    assert NATIVE["max_pool2d"].function(KernelSite("max_pool2d", MAX | {"kernel_size": unknown})) is None
    assert NATIVE["avg_pool2d"].function(KernelSite("avg_pool2d", AVERAGE | {"kernel_size": (unknown, 1)})) is None


@pytest.mark.parametrize("bounds", [{"min": None, "max": object()}, {"min": torch.tensor(0.0), "max": 1.0}])
def test_bounds_that_are_computed_are_refused(bounds: dict[str, Any]) -> None:
    refused = NATIVE["clamp"].supports(KernelSite("clamp", bounds))
    assert str(refused) == "the kernel of clamp takes bounds that are numbers"


def test_same_padding_of_an_even_kernel_is_no_layer_of_the_tables() -> None:
    attrs = {"stride": (1,), "padding": "same", "dilation": (1,), "groups": 1}
    assert layer_facts("conv1d", (4, 4, 2), attrs, per_channel=False, symmetric=True) is None
    same = layer_facts("conv1d", (4, 4, 3), attrs, per_channel=False, symmetric=True)
    assert same is not None
    assert same.padding == (1,)
    valid = layer_facts("conv1d", (4, 4, 2), attrs | {"padding": "valid"}, per_channel=False, symmetric=True)
    assert valid is not None
    assert valid.padding == (0,)
