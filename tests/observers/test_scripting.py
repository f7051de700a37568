"""TorchScript compiles, saves and runs every observer, with the results of the plain one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import pytest
import torch

from qfx import observers
from qfx.observers import ObserverBase

MAKERS: dict[str, Callable[[], ObserverBase]] = {
    "min max": observers.MinMaxObserver,
    "symmetric": observers.default_weight_observer,
    "reduced": lambda: observers.MinMaxObserver(reduce_range=True),
    "moving average": observers.MovingAverageMinMaxObserver,
    "per channel": observers.PerChannelMinMaxObserver,
    "per channel symmetric": observers.default_per_channel_weight_observer,
    "float qparams": observers.default_float_qparams_observer,
    "moving average per channel": observers.MovingAveragePerChannelMinMaxObserver,
    "histogram": observers.HistogramObserver,
    "fixed": lambda: observers.FixedQParamsObserver(0.1, 3),
}

# torch.jit is deprecated, and says so; users of scripted models still have them
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


def scripted(observer: ObserverBase) -> torch.jit.ScriptModule:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(observer), file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize("name", MAKERS)
def test_scripted_observers_do_the_same(name: str) -> None:
    plain, compiled = MAKERS[name](), scripted(MAKERS[name]())
    for batch in (torch.randn(4, 3, 7), torch.randn(4, 3, 7) * 3, torch.zeros(0, 3, 7)):
        plain(batch)
        assert compiled(batch) is not None
    for mine, theirs in zip(plain.calculate_qparams(), compiled.calculate_qparams(), strict=True):
        assert torch.equal(mine, theirs)
    assert compiled.seen_shape == plain.seen_shape == [4, 3, 7]
    for key, value in plain.state_dict().items():
        assert torch.equal(compiled.state_dict()[key], value)


def test_scripted_histograms_count_large_tensors_and_odd_values() -> None:
    plain, compiled = observers.HistogramObserver(), scripted(observers.HistogramObserver())
    x = torch.randn(2, 8, 270, 270)
    x[0, 0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    for batch in (x, x.abs().clamp(max=6.0)):
        plain(batch)
        compiled(batch)
    assert torch.equal(plain.histogram, compiled.histogram)
    assert torch.equal(plain.calculate_qparams()[0], compiled.calculate_qparams()[0])


@pytest.mark.parametrize("name", [name for name in MAKERS if "histogram" not in name])
def test_scripted_observers_leave_odd_values_out_as_well(name: str) -> None:
    plain, compiled = MAKERS[name](), scripted(MAKERS[name]())
    x = torch.randn(4, 3, 7)
    x[0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    for batch in (x, x * 2):
        plain(batch)
        compiled(batch)
    for mine, theirs in zip(plain.calculate_qparams(), compiled.calculate_qparams(), strict=True):
        assert mine.isfinite().all()
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["placeholder", "noop", "recording", "reuse_input"])
def test_scripted_placeholders_pass_values(name: str) -> None:
    cls = {
        "placeholder": observers.PlaceholderObserver,
        "noop": observers.NoopObserver,
        "recording": observers.RecordingObserver,
        "reuse_input": observers.ReuseInputObserver,
    }[name]
    x = torch.randn(3)
    compiled = scripted(cls())
    assert torch.equal(compiled(x), x)
    if name == "recording":
        assert torch.equal(compiled.get_tensor_value()[0], x)


def test_a_scripted_observer_that_never_ran_warns() -> None:
    compiled = scripted(observers.MinMaxObserver())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scale, _ = compiled.calculate_qparams()
    assert scale.tolist() == [1.0]
    assert any("never ran" in str(warning.message) for warning in caught)
