"""Asking many observers at once gives what each says alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qfx.observers import (
    FixedQParamsObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from qfx.observers.l2_search import l2_range
from qfx.observers.l2_together import l2_ranges
from qfx.observers.together import NOTHING_SEEN, answers_together

SHAPES = {
    "normal": lambda: torch.randn(4, 500),
    "one-sided": lambda: torch.rand(4, 500),
    "negative": lambda: -torch.rand(4, 500) - 3,
    "constant": lambda: torch.full((4, 8), 2.5),
    "outlier": lambda: torch.cat([torch.randn(4, 500), torch.full((4, 1), 1e4)], 1),
    "tiny": lambda: torch.randn(4, 50) * 1e-30,
    "single": lambda: torch.randn(1, 1),
}


class Doubled(MinMaxObserver):
    """A user's own way from ranges to parameters."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        scale, zero_point = super().calculate_qparams()
        return scale * 2, zero_point


def observers() -> list[Any]:
    made: list[Any] = []
    for dtype in (torch.quint8, torch.qint8):
        for scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            for kind in (MinMaxObserver, MovingAverageMinMaxObserver, HistogramObserver, Doubled):
                made.append(kind(dtype=dtype, qscheme=scheme))
                if (dtype, scheme) != (torch.quint8, torch.per_tensor_symmetric):  # refused when made
                    made.append(kind(dtype=dtype, qscheme=scheme, reduce_range=True))
        for kind in (PerChannelMinMaxObserver, MovingAveragePerChannelMinMaxObserver):
            made += [kind(dtype=dtype, qscheme=s) for s in (torch.per_channel_affine, torch.per_channel_symmetric)]
    made.append(PerChannelMinMaxObserver(dtype=torch.quint8, qscheme=torch.per_channel_affine_float_qparams))
    made.append(FixedQParamsObserver(1 / 256, 0))
    made += [HistogramObserver(bins=64), HistogramObserver(bins=2)]
    return made


def test_every_answer_is_the_observers_own_to_the_bit() -> None:
    asked = []
    for make in SHAPES.values():
        for observer in observers():
            observer(make())
            observer(make())
            asked.append(observer)
    for observer, answer in zip(asked, answers_together(asked), strict=True):
        scale, zero_point = observer.calculate_qparams()
        assert answer.scale is not None
        assert answer.zero_point is not None
        assert torch.equal(answer.scale, scale), observer
        assert torch.equal(answer.zero_point, zero_point), observer
        assert (answer.scale.dtype, answer.zero_point.dtype) == (scale.dtype, zero_point.dtype)
        assert answer.problems == observer.problems()


@pytest.mark.parametrize(
    ("x", "problem", "solved"),
    [
        (None, "never ran", False),
        (torch.empty(0, 3), "saw only empty tensors", False),
        (torch.tensor([float("inf"), 1.0, -1.0]), "saw infinity", True),
        (torch.tensor([float("nan"), 1.0]), "saw NaN", True),
    ],
)
def test_problems_are_told_and_do_not_spoil_the_neighbours(x: Tensor | None, problem: str, solved: bool) -> None:
    sound, doubtful = MinMaxObserver(), MinMaxObserver()
    sound(torch.tensor([-1.0, 1.0]))
    if x is not None:
        doubtful(x)
    first, second, third = answers_together([sound, doubtful, sound])
    assert second.problems == doubtful.problems()
    assert problem in second.problems[0]
    assert (second.scale is not None) is solved is (second.problems[0] not in NOTHING_SEEN)
    for answer in (first, third):
        assert answer.problems == []
        assert torch.equal(answer.scale, sound.calculate_qparams()[0])  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 2, 5, 1000, 1_000_000]), min_size=1, max_size=40), min_size=1),
    st.sampled_from([4, 16, 256]),
)
def test_the_search_for_many_histograms_finds_the_bins_of_the_search_for_one(
    rows: list[list[int]], levels: int
) -> None:
    bins = max(8, max(map(len, rows)))
    histograms = torch.zeros(len(rows), bins)
    for row, counts in zip(histograms, rows, strict=True):
        row[: len(counts)] = torch.tensor(counts, dtype=torch.float32)
        row[0] += 1
    lows, highs = torch.full((len(rows),), -1.0), torch.linspace(0, 3, len(rows))
    together = torch.stack(l2_ranges(histograms, lows, highs, levels), 1)
    alone = torch.stack([torch.stack(l2_range(*row, levels)) for row in zip(histograms, lows, highs, strict=True)])
    assert torch.equal(together, alone)


def test_the_search_for_many_takes_smooth_histograms_of_the_usual_size() -> None:
    x = torch.linspace(-6, 6, 2048)
    rows = [torch.exp(-((x - shift) ** 2) / width) * 1e6 for shift in (-4.0, 0.0, 2.0) for width in (0.01, 1.0, 30.0)]
    rows += [torch.rand(2048).mul_(50).floor_() for _ in range(40)]
    histograms = torch.stack([row.floor() for row in rows])
    lows, highs = torch.full((len(rows),), -6.0), torch.full((len(rows),), 6.0)
    together = torch.stack(l2_ranges(histograms, lows, highs, 256), 1)
    alone = torch.stack([torch.stack(l2_range(*row, 256)) for row in zip(histograms, lows, highs, strict=True)])
    assert torch.equal(together, alone)
