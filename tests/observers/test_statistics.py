from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.errors import ObservationError
from qfx.observers import (
    HistogramObserver,
    HistogramStatistics,
    MinMaxObserver,
    MinMaxStatistics,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    MovingAverageStatistics,
    PerChannelMinMaxObserver,
    Statistics,
    UniformQuantizationObserverBase,
    merge,
    statistics_from_state,
)

CLASSES = [
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    HistogramObserver,
]


def seen(cls: type[UniformQuantizationObserverBase], *batches: torch.Tensor) -> Statistics:
    observer = cls()
    for batch in batches:
        observer(batch)
    return observer.statistics()


@pytest.mark.parametrize("cls", CLASSES)
def test_statistics_survive_saving(cls: type[UniformQuantizationObserverBase], tmp_path: Path) -> None:
    found = seen(cls, torch.randn(3, 50), torch.randn(3, 50))
    assert pickle.loads(pickle.dumps(found)) == found
    torch.save(found.state(), tmp_path / "calibration.pt")
    assert statistics_from_state(torch.load(tmp_path / "calibration.pt", weights_only=True)) == found
    torch.save(found, io.BytesIO())
    assert found != seen(cls, torch.randn(3, 50))


def test_statistics_are_a_copy() -> None:
    observer = MinMaxObserver()
    observer(torch.ones(2))
    before = observer.statistics()
    observer(torch.full((2,), 9.0))
    assert before.max.item() == 1.0


@pytest.mark.parametrize("cls", [MinMaxObserver, PerChannelMinMaxObserver])
def test_extremes_merge_to_those_of_one_run(cls: type[UniformQuantizationObserverBase]) -> None:
    a, b, c = (torch.randn(3, 20) for _ in range(3))
    one = seen(cls, a, b, c)
    assert merge(seen(cls, a), seen(cls, b), seen(cls, c)) == one
    assert merge(seen(cls, c), seen(cls, b, a)) == one


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(0, 9), st.integers(1, 50)), min_size=3, max_size=3))
def test_moving_averages_merge_in_any_order_and_grouping(parts: list[tuple[float, float, int]]) -> None:
    a, b, c = (MovingAverageStatistics(torch.tensor(lo), torch.tensor(hi), batches=n) for lo, hi, n in parts)
    for other in (a.merge(b.merge(c)), c.merge(a).merge(b)):
        torch.testing.assert_close(other.min, a.merge(b).merge(c).min, atol=1e-5, rtol=1e-5)
        assert other.batches == sum(n for _, _, n in parts)


def test_a_moving_average_weighs_batches() -> None:
    a = seen(MovingAverageMinMaxObserver, *[torch.tensor([0.0, 1.0])] * 3)
    b = seen(MovingAverageMinMaxObserver, torch.tensor([0.0, 5.0]))
    assert merge(a, b).max.item() == 2.0


def test_histograms_of_one_range_merge_exactly() -> None:
    ends = torch.tensor([-5.0, 5.0])
    a, b = torch.cat([torch.randn(99), ends]), torch.cat([torch.randn(99), ends])
    assert merge(seen(HistogramObserver, a), seen(HistogramObserver, b)) == seen(HistogramObserver, a, b)


def test_histograms_of_other_ranges_merge_to_the_right_totals_and_places() -> None:
    a, b, c = torch.randn(5000), torch.randn(3000) * 3 + 1, torch.rand(2000)
    parts = [seen(HistogramObserver, x) for x in (a, b, c)]
    one = merge(*parts)
    assert isinstance(one, HistogramStatistics)
    assert one.count == pytest.approx(10_000)
    everything = torch.cat([a, b, c])
    assert (one.min, one.max) == (everything.min(), everything.max())
    other = parts[1].merge(parts[2].merge(parts[0]))
    exact = torch.histc(everything, 2048, float(one.min), float(one.max)).cumsum(0)
    for found in (one, other):
        assert (found.histogram.cumsum(0) - exact).abs().max() < 0.005 * 10_000
    assert parts[0].merge(parts[1]) == parts[1].merge(parts[0])


@pytest.mark.parametrize("cls", CLASSES)
def test_merging_with_nothing_changes_nothing(cls: type[UniformQuantizationObserverBase]) -> None:
    found, nothing = seen(cls, torch.randn(3, 5)), seen(cls)
    assert nothing.is_empty
    assert not found.is_empty
    assert found.merge(nothing) == found == nothing.merge(found)


def test_what_does_not_belong_together_does_not_merge() -> None:
    one = seen(MinMaxObserver, torch.ones(2))
    with pytest.raises(ObservationError, match="cannot merge min_max statistics with histogram"):
        one.merge(seen(HistogramObserver, torch.ones(2)))
    channels = MinMaxStatistics(torch.zeros(3), torch.ones(3), axis=0)
    with pytest.raises(ObservationError, match="axis None with ones along 0"):
        one.merge(channels)
    with pytest.raises(ObservationError, match="3 channels with ones of 2"):
        channels.merge(MinMaxStatistics(torch.zeros(2), torch.ones(2), axis=0))
    with pytest.raises(ObservationError, match="no statistics of kind 'average'"):
        statistics_from_state({"kind": "average"})


def test_loaded_averages_count_as_one_batch() -> None:
    observer, loaded = MovingAverageMinMaxObserver(), MovingAverageMinMaxObserver()
    observer(torch.ones(3))
    observer(torch.ones(3))
    loaded.load_state_dict(observer.state_dict())
    assert (observer.statistics().batches, loaded.statistics().batches) == (2, 1)
