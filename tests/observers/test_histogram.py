from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qfx.observers import HistogramObserver, MinMaxObserver
from qfx.observers.l2_search import expected_errors, l2_bins
from qfx.qparams import dequantize, quantize

KINDS = {
    "normal": lambda x: x,
    "skewed": lambda x: x.exp(),
    "heavy tails": lambda x: x * x.abs().sqrt(),
    "positive": lambda x: x.relu(),
    "an outlier": lambda x: x + (x == x.max()) * 40,
    "rare large ones": lambda x: torch.where(torch.rand_like(x) < 3e-4, x * 8, x),
}


def error(x: Tensor, observer: HistogramObserver | MinMaxObserver) -> float:
    q = observer.qparams()
    return float((dequantize(quantize(x, q), q) - x).double().pow(2).mean())


def calibrated(*batches: Tensor, cls: type = HistogramObserver, **kwargs: object) -> HistogramObserver:
    observer = cls(**kwargs)
    for batch in batches:
        observer(batch)
    return observer


def test_counts_and_range_add_up() -> None:
    observer = calibrated(torch.randn(1000), torch.randn(500) * 3, torch.randn(10) * 0.1)
    assert observer.histogram.sum().item() == pytest.approx(1510)
    assert repr(observer).startswith("HistogramObserver(min_val=-")
    assert list(observer.state_dict()) == ["eps", "histogram", "min_val", "max_val"]


def test_outliers_are_cut_off() -> None:
    x = torch.randn(100_000)
    x[7] = 12.0
    assert error(x, calibrated(x)) < error(x, calibrated(x, cls=MinMaxObserver))


def test_a_zero_point_outside_of_the_codes_is_a_warning() -> None:
    """The original takes this configuration without a word, and cuts off everything above zero."""
    with pytest.warns(UserWarning, match="every value above zero is lost; use torch.qint8"):
        observer = HistogramObserver(qscheme=torch.per_tensor_symmetric, reduce_range=True)
    observer(torch.randn(100))
    assert (observer.quant_max, observer.calculate_qparams()[1].item()) == (127, 128)


def test_a_search_of_ones_own() -> None:
    class Whole(HistogramObserver):
        def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
            return self.min_val, self.max_val

    x = torch.randn(100_000)
    assert calibrated(x, cls=Whole).qparams().scale == calibrated(x, cls=MinMaxObserver).qparams().scale


def test_one_value() -> None:
    scale, zero_point = calibrated(torch.full((9,), 2.55)).calculate_qparams()
    torch.testing.assert_close(scale, torch.tensor([0.01]))
    assert zero_point.tolist() == [0]


def test_growing_from_one_value_keeps_its_counts() -> None:
    observer = calibrated(torch.full((9,), 2.0), torch.tensor([0.0, 4.0]), bins=4)
    assert observer.histogram.tolist() == [1.0, 0.0, 9.0, 1.0]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_values_that_are_not_finite_are_left_out(value: float) -> None:
    x = torch.randn(1000)
    dirty = torch.cat([x, torch.tensor([value])])
    assert torch.equal(calibrated(dirty).histogram, calibrated(x).histogram)
    assert calibrated(torch.tensor([value])).problems()[0] == "saw no finite value"


@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_large_tensors_give_the_result_of_exact_counting(kind: str, dtype: torch.dtype) -> None:
    x = KINDS[kind](torch.randn(4, 8, 192, 192))
    assert x.numel() > 1 << 20
    sampled, exact = HistogramObserver(dtype=dtype), HistogramObserver(dtype=dtype)
    exact._exact_below = 1 << 30
    for batch in (x, x * 1.5, x.contiguous(memory_format=torch.channels_last)):
        sampled(batch)
        exact(batch)
    assert (sampled.min_val, sampled.max_val) == (exact.min_val, exact.max_val)
    assert error(x, sampled) <= error(x, exact) * 1.02


def test_tiny_and_huge_values_are_no_different() -> None:
    x = torch.randn(10_000)
    scales = [
        calibrated(x * factor, eps=1e-37).calculate_qparams()[0].item() / factor for factor in (2.0**-60, 1.0, 2.0**90)
    ]
    assert scales[0] == pytest.approx(scales[1], rel=2e-3)
    assert scales[2] == pytest.approx(scales[1], rel=2e-3)


def test_the_expected_error_is_the_integral_of_the_squared_error() -> None:
    histogram = torch.rand(64) * 100
    starts, ends, levels = torch.tensor([0, 5, 30]), torch.tensor([63, 50, 30]), 16
    fine = 4000
    at = (torch.arange(64 * fine, dtype=torch.float64) + 0.5) / fine
    weight = histogram.double().repeat_interleave(fine) / fine
    for start, end, found in zip(
        starts.tolist(), ends.tolist(), expected_errors(histogram, starts, ends, levels), strict=True
    ):
        step = (end - start + 1) / levels
        level = ((at - start) / step).floor().clamp(0, levels - 1)
        expected = (weight * (at - start - (level + 0.5) * step).pow(2)).sum()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def _search_step_by_step(histogram: Tensor, levels: int) -> tuple[int, int]:
    """The search in its plain form: one cut after the other."""
    total, cumulated = float(histogram.sum()), histogram.cumsum(0).tolist()
    start, end, alpha, beta, best = 0, len(cumulated) - 1, 0.0, 1.0, float("inf")
    as_float = lambda value: torch.tensor(value, dtype=torch.float32).item()  # noqa: E731
    while alpha < beta:
        left, right = start, end
        while left < end and cumulated[left] < as_float((alpha + 1e-5) * total):
            left += 1
        while right > start and cumulated[right] > as_float((beta - 1e-5) * total):
            right -= 1
        tried = (left, end) if left - start > end - right else (start, right)
        if left - start > end - right:
            alpha += 1e-5
        else:
            beta -= 1e-5
        if tried == (start, end):
            continue
        found = float(expected_errors(histogram, torch.tensor([tried[0]]), torch.tensor([tried[1]]), levels))
        if found > best:
            break
        best = found
        start, end = tried
    return start, end


@pytest.mark.parametrize("seed", range(12))
def test_the_search_walks_the_plain_path(seed: int) -> None:
    bins = (16, 64, 256)[seed % 3]
    generator = torch.Generator().manual_seed(seed)
    position = torch.linspace(-4, 4, bins)
    histogram = (torch.randn(bins, generator=generator).exp() * torch.exp(-(position**2)) * 1000).round()
    if seed % 4 == 1:  # almost all in one bin
        histogram = (torch.rand(bins, generator=generator) < 0.1).float()
        histogram[seed] = 3e4
    if seed % 4 == 3:  # heavy last bin
        histogram[-1] = 500.0
    histogram[0] += 1
    histogram[-1] += 1
    mine, plain = l2_bins(histogram, 256), _search_step_by_step(histogram, 256)
    assert abs(mine[0] - plain[0]) <= 1
    assert abs(mine[1] - plain[1]) <= 1


def test_the_steps_that_have_names_keep_every_count() -> None:
    observer = HistogramObserver(bins=8)
    observer(torch.arange(16.0))
    ends = observer.min_val, observer.max_val
    wider = observer._upscale_histogram(observer.histogram, *ends, torch.tensor(0.0), torch.tensor(30.0))
    assert wider.sum() == 16
    assert wider[4:].sum() == 0  # 15 is where the second half begins
    both = observer._combine_histograms(
        observer.histogram, *ends, torch.ones(8), torch.tensor(-5.0), torch.tensor(20.0)
    )
    assert both.sum() == 24
    observer.reset_histogram(torch.arange(4.0), torch.tensor(0.0), torch.tensor(3.0))
    assert (observer.histogram.sum(), observer.min_val, observer.max_val) == (4, 0, 3)
