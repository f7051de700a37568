"""The same numbers as torch.ao.quantization, where it is installed and right."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qfx import observers
from qfx.observers.l2_search import l2_bins

theirs = pytest.importorskip("torch.ao.quantization.observer")

pytestmark = pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")

MIN_MAX = ["MinMaxObserver", "MovingAverageMinMaxObserver"]
PER_CHANNEL = ["PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"]
DTYPES = [
    torch.quint8,
    torch.qint8,
    torch.qint32,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.uint16,
    torch.quint4x2,
    torch.float8_e4m3fn,
]


def same(mine: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(mine, other, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a, b)


def pair(name: str, **kwargs: Any) -> tuple[Any, Any]:
    return getattr(observers, name)(**kwargs), getattr(theirs, name)(**kwargs)


def feed(both: tuple[Any, Any], batches: list[Tensor]) -> None:
    for batch in batches:
        for observer in both:
            observer(batch)


def constant(value: float, size: int) -> Tensor:
    return torch.full((size, 3), value)


@st.composite
def batches(draw: st.DrawFn) -> list[Tensor]:
    """One to four batches of shape (n, 3): constant, one-sided, tiny, huge, single elements, with zeros and signs."""
    magnitude = draw(st.sampled_from([1e-38, 1e-12, 1e-3, 1.0, 7.3, 1e4, 1e18, 3e37]))
    sides = draw(st.sampled_from([(-1, 1), (0, 1), (-1, 0), (0.5, 0.5), (-0.25, -0.25), (0, 0)]))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 9))
        values = draw(st.lists(st.floats(*sides, width=32), min_size=size * 3, max_size=size * 3))
        found.append(torch.tensor(values).reshape(size, 3) * magnitude)
    return found


@st.composite
def settings_of(draw: st.DrawFn, schemes: list[torch.qscheme]) -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    qscheme = draw(st.sampled_from(schemes))
    found: dict[str, Any] = {"dtype": dtype, "qscheme": qscheme}
    if draw(st.booleans()):
        codes = (
            [(0, 127), (0, 255), (0, 15)] if dtype in (torch.quint8, torch.uint8) else [(-127, 127), (-64, 63), (-8, 7)]
        )
        if dtype not in (torch.quint4x2, torch.float8_e4m3fn, torch.uint16):
            found["quant_min"], found["quant_max"] = draw(st.sampled_from(codes))
    symmetric = qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric)
    if not (symmetric and dtype in (torch.quint8, torch.uint8)):
        found["reduce_range"] = draw(st.booleans())
    if draw(st.booleans()):
        found["eps"] = 2**-12
    return found


@pytest.mark.parametrize("name", MIN_MAX)
@settings(deadline=None, max_examples=150)
@given(settings_of([torch.per_tensor_affine, torch.per_tensor_symmetric]), batches())
def test_min_max_qparams_are_bit_identical(name: str, kwargs: dict[str, Any], data: list[Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs for reduce_range
        both = pair(name, **kwargs)
    feed(both, data)
    same(both[0].calculate_qparams(), both[1].calculate_qparams())
    for (key, a), (other, b) in zip(both[0].state_dict().items(), both[1].state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", PER_CHANNEL)
@settings(deadline=None, max_examples=150)
@given(
    settings_of([torch.per_channel_affine, torch.per_channel_symmetric, torch.per_channel_affine_float_qparams]),
    batches(),
)
def test_per_channel_qparams_are_bit_identical(name: str, kwargs: dict[str, Any], data: list[Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = pair(name, ch_axis=1, **kwargs)
    feed(both, data)
    same(both[0].calculate_qparams(), both[1].calculate_qparams())
    assert list(both[0].state_dict()) == list(both[1].state_dict())


@pytest.mark.parametrize("name", [*MIN_MAX, *PER_CHANNEL, "HistogramObserver"])
def test_state_dicts_load_both_ways(name: str) -> None:
    mine, other = pair(name)
    feed((mine, other), [torch.randn(4, 30), torch.randn(4, 30)])
    mine_again, other_again = pair(name)
    mine_again.load_state_dict(other.state_dict())
    other_again.load_state_dict(mine.state_dict())
    same(mine_again.calculate_qparams(), other_again.calculate_qparams())


@pytest.mark.parametrize("name", [name for name in observers.__all__ if name in theirs.__all__])
def test_public_names_have_the_same_arguments_and_defaults(name: str) -> None:
    import inspect

    mine, other = getattr(observers, name), getattr(theirs, name)
    if hasattr(other, "p"):
        assert mine.p.func.__name__ == other.p.func.__name__
        assert mine.p.keywords == other.p.keywords
        return
    assert mine.__name__ == other.__name__
    ours, originals = inspect.signature(mine).parameters, inspect.signature(other).parameters
    assert [(p.name, str(p.default)) for p in ours.values()] == [(p.name, str(p.default)) for p in originals.values()]


# -- histograms ------------------------------------------------------------------------------------------------------


def laplace(n: int) -> Tensor:
    u = torch.rand(n) - 0.5
    return -u.sign() * (1 - 2 * u.abs()).clamp(min=1e-7).log()


def outlier(n: int) -> Tensor:
    x = torch.randn(n)
    x[0] = 40.0
    return x


KINDS: dict[str, Callable[[int], Tensor]] = {
    "normal": torch.randn,
    "laplace": laplace,
    "relu": lambda n: torch.randn(n).relu(),
    "relu6": lambda n: (torch.randn(n) * 3).clamp(0, 6),
    "negative": lambda n: -torch.rand(n),
    "uniform": torch.rand,
    "outlier": outlier,
    "student": lambda n: torch.distributions.StudentT(2.0).sample((n,)),
    "few values": lambda n: torch.randint(0, 9, (n,)).float(),
    "two values": lambda n: torch.tensor([0.0, 1.0]).repeat(n // 2),
    "almost constant": lambda n: torch.ones(n).index_fill(0, torch.tensor([n // 2]), 100.0),
    "constant": lambda n: torch.full((n,), -3.0),
    "far from zero": lambda n: torch.rand(n) + 1000,
}


def bins_apart(mine: Any, other: Any) -> float:
    """How far apart the chosen ranges are, in bins of the histogram."""
    low, high = other._non_linear_param_search()
    start, end = l2_bins(mine.histogram, mine.dst_nbins) if mine.min_val != mine.max_val else (0, mine.bins - 1)
    width = float(other.max_val - other.min_val) / other.bins or 1.0
    mine_low = float(mine.min_val) + width * start
    mine_high = float(mine.min_val) + width * (end + 1)
    return max(abs(mine_low - float(low)), abs(mine_high - float(high))) / width


@pytest.mark.parametrize("size", [10, 1000, 60_000])
@pytest.mark.parametrize("kind", KINDS)
def test_histograms_choose_the_same_range_within_one_bin(kind: str, size: int) -> None:
    both = pair("HistogramObserver")
    feed(both, [KINDS[kind](size)])
    if both[0].min_val != both[0].max_val:
        assert bins_apart(*both) < 1.01
    else:
        same(both[0].calculate_qparams(), both[1].calculate_qparams())


@pytest.mark.parametrize("kind", ["normal", "relu", "outlier"])
def test_growing_histograms_choose_the_same_range_within_one_bin(kind: str) -> None:
    both = pair("HistogramObserver", quant_min=0, quant_max=127)
    feed(both, [KINDS[kind](2000) * 1.5**i for i in range(5)])
    assert bins_apart(*both) < 1.01


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 50), min_size=8, max_size=200),
    st.dictionaries(st.integers(0, 199), st.integers(1, 10**6), max_size=3),
)
def test_the_search_is_theirs_on_any_histogram(counts: list[int], spikes: dict[int, int]) -> None:
    bins = len(counts)
    histogram = torch.tensor(counts, dtype=torch.float32)
    for place, height in spikes.items():
        histogram[place % bins] += height
    histogram[0] += 1
    histogram[-1] += 1
    other = theirs.HistogramObserver(bins=bins)
    other.histogram, other.min_val, other.max_val = histogram, torch.tensor(0.0), torch.tensor(float(bins))
    low, high = other._non_linear_param_search()
    start, end = l2_bins(histogram, 256)
    assert abs(start - round(float(low))) <= 1
    assert abs(end + 1 - round(float(high))) <= 1


def growing(kind: str) -> Iterator[Tensor]:
    for i in range(4):
        if kind == "normal growing":
            yield torch.randn(8192) * (i + 1)
        elif kind == "one-sided growing":
            yield torch.randn(8192).relu() * 2.0**i
        elif kind == "shifting":
            yield torch.randn(8192) + i
        else:
            yield KINDS[kind](8192)


QUALITY = [
    "normal",
    "laplace",
    "relu",
    "relu6",
    "outlier",
    "student",
    "normal growing",
    "one-sided growing",
    "shifting",
]


def squared_error(x: Tensor, observer: Any) -> float:
    scale, zero_point = observer.calculate_qparams()
    q = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero_point), observer.quant_min, observer.quant_max)
    return float((q - x).double().pow(2).mean())


def test_the_error_of_a_range_of_bins_is_theirs() -> None:
    mine, other = observers.HistogramObserver(), theirs.HistogramObserver()
    x = torch.randn(5000)
    mine(x)
    other(x)
    mine.histogram.copy_(other.histogram)
    for first, last in ((0, 2047), (100, 1900), (700, 701), (3, 1200)):
        # Theirs adds up in float32
        expected = other._compute_quantization_error(first, last)
        assert mine._compute_quantization_error(first, last) == pytest.approx(expected, rel=1e-3)


def test_quantization_error_is_no_worse() -> None:
    ratios = {}
    for kind in QUALITY:
        for kwargs in (
            {},
            {"quant_min": 0, "quant_max": 127},
            {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric},
        ):
            both = pair("HistogramObserver", **kwargs)
            data = list(growing(kind))
            feed(both, data)
            x = torch.cat(data)
            ratios[kind, str(kwargs)] = squared_error(x, both[0]) / squared_error(x, both[1])
    assert max(ratios.values()) <= 1.02, ratios
    assert sum(ratios.values()) / len(ratios) <= 1.001


@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outlier"])
def test_quantization_error_is_no_worse_where_a_sample_is_counted(kind: str) -> None:
    both = pair("HistogramObserver", quant_min=0, quant_max=127)
    x = KINDS[kind](3_000_000)
    feed(both, [x, x[: 1 << 21] * 1.3])
    assert squared_error(x, both[0]) <= 1.02 * squared_error(x, both[1])


def test_tiny_values_are_where_theirs_goes_wrong() -> None:
    both = pair("HistogramObserver", eps=1e-37)
    x = torch.randn(5000) * 1e-30
    feed(both, [x])
    assert squared_error(x * 1e30, _scaled(both[0])) < 0.5 * squared_error(x * 1e30, _scaled(both[1]))


class _scaled:
    def __init__(self, observer: Any) -> None:
        self.quant_min, self.quant_max = observer.quant_min, observer.quant_max
        self.scale, self.zero_point = observer.calculate_qparams()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.scale * 1e30, self.zero_point
