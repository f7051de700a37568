"""Clamps and pools of codes: what integers say, under every engine, in every layout, scripted, traced and as a node."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qfx.kernels import codes, reference
from qfx.qparams import QParams

ENGINES = [
    name for name in ("x86", "fbgemm", "onednn", "qnnpack") if name in torch.backends.quantized.supported_engines
]
IGNORE = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
BOUNDS: list[tuple[float | None, float | None, int | None]] = [
    (-0.5, 0.7, None),
    (None, 0.3, None),
    (-0.2, None, None),
    (None, None, 70),
    (0.0, 6.0, 90),
    (0.0, 0.3, 250),
    (1.0, -1.0, None),
    (-float("inf"), 0.2, None),
    (-1e30, float("inf"), None),
]
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda q: q,
    "channels last": lambda q: q.contiguous(memory_format=torch.channels_last),
    "transposed": lambda q: q.transpose(1, 3),
    "every other": lambda q: q[:, 1:, :, ::2],
    "expanded": lambda q: q[:1].expand(3, -1, -1, -1),
    "one row": lambda q: q[1],
    "nothing": lambda q: q[:0],
    "no dimension": lambda q: q[0, 0, 0, 0],
}


def quantized(*shape: int, scale: float = 0.05, zero_point: int = 60) -> torch.Tensor:
    stored = torch.randint(0, 256, shape, dtype=torch.uint8)
    return torch._make_per_tensor_quantized_tensor(stored, scale, zero_point)


def right(q: torch.Tensor, low: float | None, high: float | None, most: int | None) -> torch.Tensor:
    found = reference.clamp(q.int_repr(), QParams(q.q_scale(), q.q_zero_point(), dtype=torch.quint8), low, high)
    return found if most is None else found.clamp(max=most)


@IGNORE
@pytest.mark.parametrize("how", ["small", "large", "scripted"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_clamps_are_exact(engine: str, layout: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.quantized.engine = engine
    monkeypatch.setattr(codes, "_LARGE", 0 if how == "large" else 2**18)
    clamp: Any = torch.jit.script(codes.clamp) if how == "scripted" else codes.clamp
    for low, high, most in BOUNDS:
        q = LAYOUTS[layout](quantized(2, 5, 6, 7))
        before, expected = q.int_repr().clone(), right(q, low, high, most)
        found = clamp(q, low, high, most)
        assert torch.equal(found.int_repr(), expected)
        assert (found.q_scale(), found.q_zero_point(), found.dtype) == (q.q_scale(), q.q_zero_point(), torch.quint8)
        assert torch.equal(q.int_repr(), before)  # somebody else may read it
        if layout == "channels last":
            assert found.is_contiguous(memory_format=torch.channels_last)
        if layout != "expanded":
            assert torch.equal(clamp(q, low, high, most, True).int_repr(), expected)


def test_memory_is_reused_only_where_nobody_else_reads_it() -> None:
    q = quantized(2, 5, 1200, 70)
    whole, part = q.int_repr(), q[:, :, :600]
    assert codes.clamp(q, high=0.3).data_ptr() != q.data_ptr()
    assert torch.equal(q.int_repr(), whole)
    # A part of a storage leaves the rest of it alone.
    assert codes.clamp(part, most=70, reuse=True).data_ptr() == q.data_ptr()
    assert torch.equal(q[:, :, 600:].int_repr(), whole[:, :, 600:])
    assert torch.equal(part.int_repr(), whole[:, :, :600].clamp(max=70))
    assert codes.clamp(q, high=0.3, reuse=True).data_ptr() == q.data_ptr()
    plain = torch.arange(256, dtype=torch.uint8)
    assert codes.clamp(plain, most=127).max() == 127
    assert plain.max() == 255
    assert codes.clamp(plain, most=127, reuse=True) is plain
    assert plain.max() == 127


@settings(deadline=None, max_examples=200)
@given(st.floats(2**-10, 2.0), st.integers(0, 255), st.floats(-300, 300), st.booleans())
def test_a_bound_is_rounded_as_the_reference_graph_rounds_it(
    scale: float, zero_point: int, bound: float, half: bool
) -> None:
    """Which torch's own clamp does not, at ties."""
    scale = float(torch.tensor(scale))
    bound = scale * (round(bound) + 0.5) if half else bound  # ties are where kernels differ
    q = torch._make_per_tensor_quantized_tensor(torch.arange(256, dtype=torch.uint8), scale, zero_point)
    for name in ("low", "high"):
        graph = q.dequantize().clamp(**{{"low": "min", "high": "max"}[name]: bound})
        expected = torch.quantize_per_tensor(graph, scale, zero_point, torch.quint8)
        assert torch.equal(codes.clamp(q, **{name: bound}).int_repr(), expected.int_repr())


@pytest.mark.parametrize("dtype", [torch.qint8, torch.qint32])
@IGNORE
def test_signed_codes(dtype: torch.dtype) -> None:
    q = torch.quantize_per_tensor(torch.randn(4, 9), 0.05, 3, dtype)
    expected = torch.clamp(q, -0.5, 0.7).int_repr()
    for clamp in (codes.clamp, torch.jit.script(codes.clamp)):
        assert torch.equal(clamp(q, -0.5, 0.7).int_repr(), expected)
    assert torch.equal(codes.clamp(q, -0.5, 0.7, reuse=True).int_repr(), expected)


def test_no_bound_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="At least one of 'min' or 'max'"):
        codes.clamp(quantized(3))


@pytest.mark.skipif("qnnpack" not in ENGINES, reason="needs qnnpack")
def test_torch_still_leaves_them_to_qnnpack() -> None:
    """A torch that gets these right will fail this test: then the functions can go."""
    torch.backends.quantized.engine = "qnnpack"
    q = quantized(2, 5, 6, 7).contiguous(memory_format=torch.channels_last)
    for clamp in (F.relu6, lambda x: F.hardtanh(x, -0.5, 0.7), lambda x: torch.clamp(x, -0.5, 0.7)):
        assert not torch.equal(clamp(q).dequantize(), clamp(q.dequantize()))
    with pytest.raises(RuntimeError, match="Both min and max should be specified"):
        torch.clamp(q, max=0.3)
    dilated = F.max_pool2d(q, 3, 1, 1, 2).int_repr()
    assert not torch.equal(dilated, reference.max_pool(q.int_repr(), 3, 1, 1, 2))
    how: tuple[Any, ...]
    for how in ((3, 2, 1, False, False), (2, 2, 0, False, True, 3)):
        exact = reference.avg_pool(q.int_repr(), QParams(0.05, 60, dtype=torch.quint8), *how)
        assert int((F.avg_pool2d(q, *how).int_repr().int() - exact.int()).abs().max()) > 1
    for pool in (lambda: F.max_pool2d(q, 1, 2), lambda: F.avg_pool2d(q, 1, 2), lambda: F.max_pool3d(q[None], 2)):
        with pytest.raises(RuntimeError, match="QNNPACK"):
            pool()


FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def window(draw: Any, n: int) -> tuple[list[int], list[int], list[int], list[int]]:
    each = [draw(st.tuples(*[st.integers(1, 3)] * n)) for _ in range(2)]
    kernel, stride = map(list, each)
    return kernel, stride, [draw(st.integers(0, k // 2)) for k in kernel], [draw(st.integers(1, 2)) for _ in kernel]


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from([1, 2, 3]), st.booleans(), st.booleans(), st.booleans())
def test_pools_are_exact_under_every_engine(data: Any, n: int, batched: bool, last: bool, ceil_mode: bool) -> None:
    kernel, stride, padding, dilation = window(data.draw, n)
    sizes = [data.draw(st.integers(5, 8)) for _ in range(n)]
    q = quantized(*([2] if batched else []), data.draw(st.sampled_from([1, 3, 8])), *sizes, scale=0.02)
    if last and batched and n in FORMATS:
        q = q.contiguous(memory_format=FORMATS[n])
    largest = getattr(F, f"max_pool{n}d")(q.int_repr().float(), kernel, stride, padding, dilation, ceil_mode)
    counted = data.draw(st.booleans())
    divisor = None if n == 1 else data.draw(st.sampled_from([None, 3]))
    torch.backends.quantized.engine = "x86" if "x86" in ENGINES else ENGINES[0]
    own = (kernel, stride, padding, ceil_mode, counted, *([divisor] if n > 1 else []))
    # Without x86 there is no engine to compare with but qnnpack, which is wrong.
    average = getattr(F, f"avg_pool{n}d")(q, *own).int_repr() if batched or n < 3 else None
    for engine in ENGINES:
        torch.backends.quantized.engine = engine
        found = codes.max_pool(q, kernel, stride, padding, dilation, ceil_mode)
        assert torch.equal(found.int_repr().float(), largest)
        assert (found.q_scale(), found.q_zero_point()) == (q.q_scale(), q.q_zero_point())
        found = codes.avg_pool(q, kernel, stride, padding, ceil_mode, counted, divisor)
        assert average is None or torch.equal(found.int_repr(), average)


@IGNORE
@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from([1, 2, 3]), st.booleans(), st.booleans(), st.booleans())
def test_adaptive_max_pools_are_exact(data: Any, n: int, batched: bool, last: bool, plain: bool) -> None:
    sizes = [data.draw(st.integers(1, 9)) for _ in range(n)]
    wanted = [data.draw(st.sampled_from([-1, 1, 2, 3, 4, 11])) for _ in range(n)]
    q = quantized(*([2] if batched else []), data.draw(st.sampled_from([1, 3, 8])), *sizes, scale=0.02)
    if last and batched and n in FORMATS:
        q = q.contiguous(memory_format=FORMATS[n])
    pool = getattr(F, f"adaptive_max_pool{n}d")
    largest = pool(q.int_repr().float(), [s if w < 0 else w for s, w in zip(sizes, wanted, strict=True)])
    for how in (codes.adaptive_max_pool, torch.jit.script(codes.adaptive_max_pool)):
        found = how(q.int_repr() if plain else q, wanted)
        assert torch.equal((found if plain else found.int_repr()).float(), largest)
        assert plain or (found.q_scale(), found.q_zero_point()) == (q.q_scale(), q.q_zero_point())


class Model(nn.Module):
    def forward(self, q: torch.Tensor) -> torch.Tensor:
        q = codes.clamp(q, low=-0.5, high=0.5, most=66)
        q = codes.max_pool(q, [2, 2], [1, 1], [1, 1], [2, 2], False)
        return codes.clamp(codes.avg_pool(q, [3, 3], [2, 2], [1, 1], False, False), most=63, reuse=True)


@IGNORE
@pytest.mark.parametrize("engine", ENGINES)
def test_they_script_save_and_load(engine: str) -> None:
    q = quantized(2, 4, 8, 8)
    expected = Model()(q).int_repr()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Model()), file)
    file.seek(0)
    torch.backends.quantized.engine = engine
    assert torch.equal(torch.jit.load(file)(q).int_repr(), expected)


@IGNORE
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_they_survive_torchs_tracer() -> None:
    """It follows results: a clamp that only wrote to memory would be gone."""
    traced = torch.jit.trace(Model(), (quantized(2, 4, 8, 8),), check_trace=False)
    for _ in range(2):
        q = quantized(2, 4, 8, 8)
        assert torch.equal(traced(q).int_repr(), Model()(q).int_repr())


def test_under_an_fx_tracer_each_is_one_call() -> None:
    class WithPool3d(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return codes.adaptive_max_pool(codes.max_pool(q, [2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1], False), [1])

    gm = torch.fx.symbolic_trace(Model())
    assert [n.target for n in gm.graph.nodes if n.op == "call_function"] == [
        codes.clamp, codes.max_pool, codes.avg_pool, codes.clamp
    ]  # fmt: skip
    q = quantized(2, 4, 8, 8)
    assert torch.equal(gm(q).int_repr(), Model()(q).int_repr())
    traced = [n.target for n in torch.fx.symbolic_trace(WithPool3d()).graph.nodes]
    assert traced[1:3] == [codes.max_pool, codes.adaptive_max_pool]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("shifts", "dims"), [([1], [1]), ([-7, 2], [0, 3]), ([5], []), ([0], [2])])
def test_a_roll_moves_codes(shifts: list[int], dims: list[int], engine: str, layout: str) -> None:
    torch.backends.quantized.engine = engine
    q = LAYOUTS[layout](quantized(2, 4, 5, 6))
    dims = [dim for dim in dims if dim < q.dim()]
    shifts = shifts[: max(len(dims), 1)]
    rolled = codes.roll(q, shifts, dims)
    assert torch.equal(rolled.int_repr(), torch.roll(q.int_repr(), shifts, dims))
    assert (rolled.q_scale(), rolled.q_zero_point()) == (q.q_scale(), q.q_zero_point())


# -- PReLU -----------------------------------------------------------------------------------------------------------
@IGNORE
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")  # the number of slopes
@pytest.mark.parametrize("how", ["eager", "scripted", "traced by torch.jit"])
@pytest.mark.parametrize("slopes", [[0.25], [0.1, -0.7, 0.0, 1.9, 0.3]])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "every other", "nothing"])
def test_prelu_is_the_float_one_of_each_code(layout: str, slopes: list[float], how: str) -> None:
    q = LAYOUTS[layout](quantized(3, 10 if layout == "every other" else 5, 6, 7))[:, :5]
    weight = torch.quantize_per_tensor(torch.tensor(slopes), 0.011, 64, torch.quint8)
    function: Any = codes.prelu
    if how == "scripted":
        function = torch.jit.script(codes.prelu)
    elif how != "eager":
        function = torch.jit.trace(lambda a, b: codes.prelu(a, b, 0.03, 50), (quantized(3, 5, 6, 7), weight))
    found = function(q, weight, 0.03, 50) if how != "traced by torch.jit" else function(q, weight)
    expected = torch.quantize_per_tensor(F.prelu(q.dequantize(), weight.dequantize()), 0.03, 50, torch.quint8)
    assert torch.equal(found.int_repr(), expected.int_repr())
    assert (found.q_scale(), found.q_zero_point()) == (0.03, 50)


def test_prelu_is_one_node_of_a_graph() -> None:
    class Calls(nn.Module):
        def forward(self, q: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return codes.prelu(q, w, 0.03, 50)

    (node,) = torch.fx.symbolic_trace(Calls()).graph.find_nodes(op="call_function", target=codes.prelu)
    assert node.args[2:] == (0.03, 50)
