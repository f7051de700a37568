"""onednn's kernels on plain integers: equal, code for code, to the exact reference."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qfx.errors import KernelError
from qfx.kernels import onednn, reference
from qfx.kernels.cpu import has_tiles
from qfx.kernels.engines import LayerFacts
from qfx.kernels.kernel import KernelSite
from qfx.kernels.onednn import weighted
from qfx.kernels.onednn.kernels import WEIGHTED
from qfx.kernels.reference import onednn_roundings_here
from qfx.qparams import QParams

X = QParams(0.05, 60, dtype=torch.quint8)
OTHER = QParams(0.04, 90, dtype=torch.quint8)
OUT = QParams(0.3, 100, dtype=torch.quint8)


def codes(*shape: int, highest: int = 127) -> torch.Tensor:
    found = torch.randint(0, highest + 1, shape, dtype=torch.uint8)
    found.view(-1)[:2] = torch.tensor([0, highest], dtype=torch.uint8)
    return found


def layer(rng: random.Random, dims: int, *, per_channel: bool) -> tuple[onednn.OnednnSpec, QParams]:
    groups = rng.choice([1, 1, 2, 4])
    into, out = groups * rng.choice([1, 2, 3, 8]), groups * rng.choice([1, 2, 5, 8])
    kernel = [rng.choice([1, 2, 3]) for _ in range(dims)]
    shape = (out, into // groups, *kernel) if dims else (out, into)
    weight = torch.randint(-128, 128, shape, dtype=torch.int8)
    scale = torch.rand(out) * 0.01 + 0.005 if per_channel else torch.tensor([0.01])
    bias = torch.randn(out) if rng.random() < 0.5 else None
    how: dict[str, Any] = {}
    if dims:
        # Padding as wide as the kernel is one of the limits.
        how = {
            "stride": tuple(rng.choice([1, 2]) for _ in range(dims)),
            "padding": tuple(rng.randrange(k) for k in kernel),
            "dilation": tuple(rng.choice([1, 2]) for _ in range(dims)),
            "groups": groups,
        }
    spec = onednn.OnednnSpec(f"conv{dims}d" if dims else "linear", weight, scale, bias, **how)
    q = QParams(scale if per_channel else float(scale), 0, 0 if per_channel else None, dtype=torch.qint8)
    return spec, q


def expected(x: torch.Tensor, spec: onednn.OnednnSpec, w: QParams, **post: Any) -> list[torch.Tensor]:
    """What may come out: with AMX, one of two roundings."""
    how: dict[str, Any] = {}
    if spec.kind != "linear":
        how = {"stride": spec.stride, "padding": spec.padding, "dilation": spec.dilation, "groups": spec.groups}
    compute = reference.linear if spec.kind == "linear" else reference.conv
    return [
        compute(x, spec.weight, spec.bias, X, w, OUT, engine=engine, **how, **post)
        for engine in onednn_roundings_here()
    ]


POSTS: dict[str, tuple[float | None, float | None]] = {
    "none": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 2.5),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("dims", "post"), [*itertools.product((0, 1, 2), POSTS), (3, "none")])
def test_a_layer_is_its_reference(dims: int, post: str, seed: int) -> None:
    low, high = POSTS[post]
    torch.manual_seed(seed)
    rng = random.Random(seed)
    spec, w = layer(rng, dims, per_channel=rng.random() < 0.5)
    channels = spec.weight.shape[1] * (spec.groups if dims else 1)
    x = codes(2, *([3] if not dims else []), channels, *[7] * dims) if dims else codes(2, 3, channels)
    if dims == 2 and rng.random() < 0.5:
        x = x.contiguous(memory_format=torch.channels_last)
    call = onednn.conv if dims else onednn.linear
    found = call(x, *X.scalars(), spec.pack(), *OUT.scalars(), low=low, high=high)
    clamp = None
    if post in ("relu6", "hardtanh"):
        assert low is not None
        assert high is not None
        clamp = (round(low / 0.3) + 100, round(high / 0.3) + 100)
    assert found.dtype is torch.uint8
    assert any(torch.equal(found, each) for each in expected(x, spec, w, relu=post == "relu", clamp=clamp))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dims", [0, 2])
def test_a_sum_is_added_before_anything_is_rounded(dims: int, relu: bool) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        spec, w = layer(random.Random(seed), dims, per_channel=True)
        channels = spec.weight.shape[1] * spec.groups
        x = codes(2, channels, *[7] * dims)
        call, add = (onednn.conv, onednn.conv_add) if dims else (onednn.linear, onednn.linear_add)
        other = codes(*call(x, *X.scalars(), spec.pack(), *OUT.scalars()).shape, highest=255)
        before = other.clone()
        found = add(x, *X.scalars(), spec.pack(), other, *OTHER.scalars(), *OUT.scalars(), relu=relu)
        assert torch.equal(other, before)
        exact = (x.double() - X.zero_point) * X.scale
        weight = spec.weight.double() * torch.as_tensor(w.scale).double().reshape(-1, *[1] * (spec.weight.dim() - 1))
        bias = None if spec.bias is None else spec.bias.double()
        if dims:
            how = (spec.stride, spec.padding, spec.dilation, spec.groups)
            real = torch.nn.functional.conv2d(exact, weight, bias, *how)
        else:
            real = torch.nn.functional.linear(exact, weight, bias)
        total = (real + (other.double() - OTHER.zero_point) * OTHER.scale) / OUT.scale
        total = total.clamp(min=0) if relu else total
        wanted = (total.round() + OUT.zero_point).clamp(0, 255)
        near_a_tie = ((total - total.floor()) - 0.5).abs() < 1e-4  # onednn sums in float32
        assert torch.equal(found.double()[~near_a_tie], wanted[~near_a_tie])
        assert float((found.double() - wanted).abs().max()) <= 1


def test_what_is_added_may_broadcast() -> None:
    spec = onednn.OnednnSpec(
        "conv2d", torch.ones(4, 3, 1, 1, dtype=torch.int8), torch.tensor([0.1]), None, (1, 1), (0, 0), (1, 1)
    )
    x, other = codes(2, 3, 5, 5), codes(1, 4, 1, 1)
    packed = spec.pack()
    wide = onednn.conv_add(x, *X.scalars(), packed, other.expand(2, 4, 5, 5), *OTHER.scalars(), *OUT.scalars())
    assert torch.equal(onednn.conv_add(x, *X.scalars(), packed, other, *OTHER.scalars(), *OUT.scalars()), wide)


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_the_largest_code_of_a_result(dims: int) -> None:
    """Inside the kernel or after it: a batch, a sample, behind an addition, with a bound in real numbers as well."""
    for seed in range(10):
        spec, _ = layer(random.Random(seed), dims, per_channel=True)
        packed, channels = spec.pack(), spec.weight.shape[1] * spec.groups
        x = codes(2, channels, *[7] * dims)
        call, add = (onednn.conv, onednn.conv_add) if dims else (onednn.linear, onednn.linear_add)
        free = call(x, *X.scalars(), packed, *OUT.scalars())
        assert torch.equal(call(x, *X.scalars(), packed, *OUT.scalars(), most=110), free.clamp(max=110))
        assert torch.equal(call(x[0], *X.scalars(), packed, *OUT.scalars(), most=110), free[0].clamp(max=110))
        if dims == 3:
            continue  # onednn has neither there
        for high in (2.0, 9.0):
            bounded = call(x, *X.scalars(), packed, *OUT.scalars(), high=high)
            both = call(x, *X.scalars(), packed, *OUT.scalars(), high=high, most=110)
            assert torch.equal(both, bounded.clamp(max=110))
        if dims != 1:
            other = codes(*free.shape, highest=255)
            arguments = (*X.scalars(), packed, other, *OTHER.scalars(), *OUT.scalars())
            whole = add(x, *arguments)
            assert torch.equal(add(x, *arguments, most=110), whole.clamp(max=110))
            sample = (x[0], *X.scalars(), packed, other[0], *OTHER.scalars(), *OUT.scalars())
            assert torch.equal(add(*sample, most=110), whole[0].clamp(max=110))


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_column_of_results(dims: int, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for AMX compute it wrong; a second column beside it, thrown away, has them compute it right."""
    monkeypatch.setattr(weighted, "has_tiles", lambda: tiles or has_tiles())
    scale = torch.full((8,), 0.01)
    w = QParams(scale, torch.zeros(8, dtype=torch.int64), 0, dtype=torch.qint8)
    for kernel, stride, padding, size in ((3, 2, 0, 3), (3, 3, 0, 5), (5, 2, 1, 4), (2, 4, 1, 1)):
        shape = (8, 4, *[3] * (dims - 1), kernel)
        weight = torch.randint(-128, 128, shape, dtype=torch.int8)
        geometry = {"stride": (*[1] * (dims - 1), stride), "padding": (*[1] * (dims - 1), padding)}
        spec = onednn.OnednnSpec(f"conv{dims}d", weight, scale, None, **geometry, dilation=(1,) * dims, groups=1)
        x = codes(2, 4, *[6] * (dims - 1), size)
        found = onednn.conv(x, *X.scalars(), spec.pack(), *OUT.scalars())
        assert found.shape[-1] == 1
        assert any(torch.equal(found, each) for each in expected(x, spec, w))
        if dims == 2:
            other = codes(*found.shape, highest=255)
            added = onednn.conv_add(x, *X.scalars(), spec.pack(), other, *OTHER.scalars(), *OUT.scalars())
            wide = onednn.conv_add(
                F.pad(x, (0, 4 * stride), value=X.zero_point), *X.scalars(), spec.pack(),
                other.expand(*found.shape[:-1], 5), *OTHER.scalars(), *OUT.scalars(),
            )  # fmt: skip
            assert torch.equal(added, wide[..., :1])


def test_an_empty_batch_has_an_empty_result() -> None:
    packed = onednn.OnednnSpec("linear", torch.ones(5, 3, dtype=torch.int8), torch.tensor([0.1])).pack()
    found = onednn.linear(torch.empty(0, 3, dtype=torch.uint8), *X.scalars(), packed, *OUT.scalars())
    assert (found.shape, found.dtype) == ((0, 5), torch.uint8)


def test_a_weight_is_packed_again_for_other_inputs() -> None:
    spec, w = layer(random.Random(3), 2, per_channel=True)
    packed, x = spec.pack(), codes(1, spec.weight.shape[1] * spec.groups, 6, 6)
    first = onednn.conv(x, *X.scalars(), packed, *OUT.scalars())
    onednn.conv(x, 0.07, 5, packed, *OUT.scalars())
    assert torch.equal(onednn.conv(x, *X.scalars(), packed, *OUT.scalars()), first)
    assert any(torch.equal(first, each) for each in expected(x, spec, w))


def test_the_state_of_a_spec_goes_round() -> None:
    spec, _ = layer(random.Random(1), 2, per_channel=True)
    again = spec.with_state(spec.state())
    assert all(a is b for a, b in zip(again.state(), spec.state(), strict=True))
    with pytest.raises(KernelError, match="the state dict has a weight of shape"):
        spec.with_state((torch.zeros(1, 1, 1, 1, dtype=torch.int8), torch.ones(1), None))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("conv4d", torch.ones(1, 1, dtype=torch.int8)), "onednn packs no weight of kind 'conv4d'"),
        (("linear", torch.ones(1, 1)), "onednn takes torch.int8 weights, not torch.float32"),
        (("linear", torch.ones(3, 0, dtype=torch.int8)), "onednn ends the process given a weight without elements"),
    ],
)
def test_what_cannot_be_packed_is_refused_when_the_spec_is_made(arguments: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(KernelError, match=reason):
        onednn.OnednnSpec(*arguments, torch.ones(1))


LAYER = LayerFacts("conv2d", 8, 8, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (KernelSite("conv2d", layer=LAYER, weight_dtype=torch.quint8), "the kernels take weights of 8 bits with sign"),
        (KernelSite("conv2d", weight_dtype=torch.qint8), "the kernels pad both sides alike"),
        (
            KernelSite("conv2d", {"padding_mode": "reflect"}, layer=LAYER, weight_dtype=torch.qint8),
            "onednn pads with zeros only, not by 'reflect'",
        ),
        (
            KernelSite(
                "conv2d",
                layer=LayerFacts("conv2d", 8, 8, kernel=(3, 3), stride=(1, 1), symmetric_weight=False),
                weight_dtype=torch.qint8,
            ),
            "onednn takes weights with zero point 0 only",
        ),
    ],
)
def test_what_onednn_does_not_take_has_a_reason(site: KernelSite, reason: str) -> None:
    refused = WEIGHTED["conv2d"].supports(site)
    assert refused is not None
    assert str(refused).startswith(reason)


OVERFLOW = """
import torch
from qfx.kernels import onednn
packed = onednn.OnednnSpec("linear", torch.full((1, 64), 127, dtype=torch.int8), torch.tensor([1.0])).pack()
def code(x):
    return int(onednn.linear(torch.full((1, 64), x, dtype=torch.uint8), 1.0, 0, packed, 64 * 127.0, 0))
print(code(255), code(127))
"""


def test_without_vnni_8_bit_sums_overflow_and_7_bit_sums_do_not() -> None:
    """The instruction set is held to AVX2, so that every machine shows it."""
    import os

    without = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", OVERFLOW], env=without, capture_output=True, text=True, check=True)
    eight, seven = map(int, done.stdout.split())
    assert seven == 127
    assert eight < 255


@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (4, 5, 5), (3, 5)])
def test_an_input_of_another_shape_is_refused_in_words(shape: tuple[int, ...]) -> None:
    weight = torch.ones(2, 3, 1, 1, dtype=torch.int8)
    packed = onednn.OnednnSpec("conv2d", weight, torch.tensor([0.1]), None, (1, 1), (0, 0), (1, 1)).pack()
    with pytest.raises(KernelError, match=r"conv2d takes \(N, C, H, W\) with 3 channels, got"):
        onednn.conv(codes(*shape), *X.scalars(), packed, *OUT.scalars())
