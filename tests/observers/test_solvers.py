from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qfx.errors import ConfigError, ObservationError
from qfx.observers import (
    SOLVERS,
    HistogramObserver,
    MinMaxObserver,
    MinMaxStatistics,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    Statistics,
    solve,
)
from qfx.qparams import QParams, dequantize, quantize

COUNTING = ["min_max", "histogram_l2", "percentile", "mse", "kl"]
SCHEMES = [torch.per_tensor_affine, torch.per_tensor_symmetric]


def counts(x: Tensor) -> Statistics:
    observer = HistogramObserver()
    observer(x)
    return observer.statistics()


def error(x: Tensor, q: QParams) -> float:
    return float((dequantize(quantize(x, q), q) - x).double().pow(2).mean())


def laplace(n: int) -> Tensor:
    u = torch.rand(n) - 0.5
    return -u.sign() * (1 - 2 * u.abs()).clamp(min=1e-7).log()


@pytest.mark.parametrize(
    "cls", [MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver, HistogramObserver]
)
def test_the_default_solver_is_the_observers_own(cls: type) -> None:
    observer = cls(dtype=torch.qint8)
    observer(torch.randn(3, 200))
    observer(torch.randn(3, 200))
    assert solve(observer.statistics(), dtype=torch.qint8) == observer.qparams()


@pytest.mark.parametrize("qscheme", SCHEMES)
@pytest.mark.parametrize("solver", COUNTING)
@pytest.mark.parametrize(
    "x",
    [torch.linspace(-1, 1, 999), torch.full((5,), 3.0), torch.full((5,), -3.0), -torch.rand(999), torch.zeros(4)],
    ids=["uniform", "constant", "negative constant", "negative", "zero"],
)
def test_every_solver_takes_every_kind_of_data(x: Tensor, solver: str, qscheme: torch.qscheme) -> None:
    q = solve(counts(x), solver, dtype=torch.qint8, qscheme=qscheme)
    assert q.scale.shape == (1,)
    assert torch.isfinite(q.scale).all()
    assert error(x, q) <= 1e-3


@pytest.mark.parametrize("qscheme", SCHEMES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("make", [torch.randn, laplace, lambda n: torch.randn(n).relu(), lambda n: torch.rand(n) - 0.2])
def test_mse_beats_the_others_at_what_it_minimizes(make: object, bits: int, qscheme: torch.qscheme) -> None:
    x = make(20_000)
    codes = {"quant_min": -(2 ** (bits - 1)), "quant_max": 2 ** (bits - 1) - 1}
    errors = {s: error(x, solve(counts(x), s, dtype=torch.qint8, qscheme=qscheme, **codes)) for s in COUNTING}
    assert errors["mse"] <= 1.01 * min(errors.values())


@pytest.mark.parametrize("make", [torch.randn, laplace])
def test_kl_cuts_the_tails_where_codes_are_few(make: object) -> None:
    x = make(50_000)
    codes = {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric, "quant_min": -8, "quant_max": 7}
    found = {s: solve(counts(x), s, **codes) for s in ("min_max", "kl")}
    assert found["kl"].scale < 0.9 * found["min_max"].scale
    assert error(x, found["kl"]) < error(x, found["min_max"])


def test_kl_is_not_misled_by_the_zeros_of_a_relu() -> None:
    x = torch.randn(50_000).relu()
    assert error(x, solve(counts(x), "kl")) < 1.5 * error(x, solve(counts(x), "min_max"))


def test_percentile_keeps_the_share_asked_for() -> None:
    x = torch.linspace(-1, 1, 100_001)
    q = solve(counts(x), "percentile", percentile=90.0, dtype=torch.quint8)
    torch.testing.assert_close(q.scale, torch.tensor([1.8 / 255]), rtol=1e-3, atol=0.0)
    symmetric = solve(counts(x), "percentile", percentile=90.0, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    torch.testing.assert_close(symmetric.scale, torch.tensor([0.9 / 127.5]), rtol=1e-3, atol=0.0)
    one_sided = solve(counts(x.abs()), "percentile", percentile=90.0)
    torch.testing.assert_close(one_sided.scale, torch.tensor([0.9 / 255]), rtol=1e-3, atol=0.0)
    assert solve(counts(x), "percentile", percentile=100.0) == solve(counts(x), "min_max")
    with pytest.raises(ConfigError, match="not in"):
        solve(counts(x), "percentile", percentile=0.0)


def test_one_calibration_solves_for_any_bit_width() -> None:
    found = counts(torch.randn(5000))
    wide, narrow = solve(found, dtype=torch.quint8), solve(found, dtype=torch.quint8, quant_min=0, quant_max=15)
    assert (wide.codes, narrow.codes) == ((0, 255), (0, 15))
    assert solve(found, reduce_range=True).codes == (0, 127)
    assert narrow.scale > 10 * wide.scale


def test_a_function_can_be_a_solver() -> None:
    q = solve(counts(torch.randn(50)), lambda statistics, goal, top: (torch.tensor(0.0), torch.tensor(top)), top=2.55)
    torch.testing.assert_close(q.scale, torch.tensor([0.01]))


def test_per_channel_statistics_give_per_channel_parameters() -> None:
    q = solve(MinMaxStatistics(torch.zeros(3), torch.ones(3), axis=1), dtype=torch.qint8)
    assert (q.axis, q.scale.shape, q.qscheme) == (1, (3,), torch.per_channel_affine)


@pytest.mark.parametrize(
    ("call", "error_class", "reason"),
    [
        (lambda: solve(counts(torch.ones(1)), "least"), ConfigError, "no solver 'least'; choose one of min_max"),
        (lambda: solve(counts(torch.zeros(0))), ObservationError, "saw nothing"),
        (
            lambda: solve(MinMaxStatistics(torch.tensor(float("nan")), torch.tensor(1.0))),
            ObservationError,
            "NaN or infinity",
        ),
        (
            lambda: solve(MinMaxStatistics(torch.tensor(0.0), torch.tensor(1.0)), "kl"),
            ObservationError,
            "kl needs counts",
        ),
        (
            lambda: solve(MinMaxStatistics(torch.tensor(0.0), torch.tensor(1.0)), "moving_average"),
            ObservationError,
            "moving average observer",
        ),
        (
            lambda: solve(counts(torch.ones(1)), qscheme=torch.per_channel_affine),
            ConfigError,
            "does not fit statistics with axis None",
        ),
    ],
)
def test_what_cannot_be_solved_says_why(call: object, error_class: type[Exception], reason: str) -> None:
    with pytest.raises(error_class, match=reason):
        call()


def test_solvers_are_listed() -> None:
    assert list(SOLVERS) == ["min_max", "moving_average", *COUNTING[1:]]
