"""Fake quantization rounds to the values integers have, lets gradients through, and keeps its parameters."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qfx
from qfx.errors import ConfigError
from qfx.qparams import QParams, dequantize, quantize

X = torch.tensor([-1.0, -0.3, 0.0, 0.4, 2.0])


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.booleans())
@settings(deadline=None)
def test_the_result_is_quantize_then_dequantize(values: list[float], signed: bool) -> None:
    fake = qfx.default_weight_fake_quant() if signed else qfx.default_fake_quant()
    x = torch.tensor(values)
    found = fake(x)
    q = QParams(fake.scale, fake.zero_point, None, fake.dtype, fake.quant_min, fake.quant_max)
    # The kernel adds the zero point after rounding, the codes' reference before: a tie may fall to either side.
    off = (found - dequantize(quantize(x, q), q)).abs()
    assert bool((off <= float(fake.scale) * 1.0001).all())
    assert float((off > 0).float().mean()) <= 0.5
    inside = found.clamp(x.min().clamp(max=0), x.max().clamp(min=0))
    assert float((inside - x).abs().max()) <= float(fake.scale)


def test_a_channel_has_a_scale_of_its_own() -> None:
    fake = qfx.default_per_channel_weight_fake_quant()
    w = torch.tensor([[1.0, -1.0], [100.0, 50.0]])
    found = fake(w)
    assert fake.scale.shape == fake.zero_point.shape == (2,)
    torch.testing.assert_close(found, w, rtol=0.01, atol=0)


def test_gradients_pass_inside_the_codes_and_stop_outside() -> None:
    fake = qfx.FakeQuantize(quant_min=0, quant_max=255)
    fake(torch.tensor([0.0, 2.55]))
    fake.disable_observer()
    x = torch.tensor([-1.0, 0.5, 2.0, 9.0], requires_grad=True)
    fake(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("make", [qfx.FakeQuantize, qfx.FusedMovingAvgObsFakeQuantize])
def test_the_switches(make: type[qfx.FakeQuantize]) -> None:
    fake = make()
    fake.disable_fake_quant()
    assert torch.equal(fake(X), X)
    assert float(fake.activation_post_process.max_val) == 2.0
    fake.enable_fake_quant()
    fake(X)
    fake.disable_observer()
    before = fake.scale.clone()
    assert not torch.equal(fake(X * 10), X * 10)
    assert torch.equal(fake.scale, before)
    fake.enable_observer()
    fake(X * 10)
    assert float(fake.scale) > float(before)


def test_a_narrowed_range_is_the_modules_range() -> None:
    fake = qfx.default_fake_quant()
    assert (fake.quant_min, fake.quant_max) == (0, 127)


def test_fixed_parameters_never_move() -> None:
    fake = qfx.default_fixed_qparams_range_neg1to1_fake_quant()
    fake(torch.randn(100) * 50)
    assert (float(fake.scale), int(fake.zero_point)) == (1 / 128, 128)
    assert [float(v) for v in fake.calculate_qparams()] == [1 / 128, 128]
    with pytest.raises(ConfigError, match="observer must be a FixedQParamsObserver, not a MinMaxObserver"):
        qfx.FixedQParamsFakeQuantize(qfx.MinMaxObserver)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"quant_min": -200, "quant_max": 10, "dtype": torch.qint8}, "-200"),
        ({"quant_min": 5, "quant_max": 50}, "0"),
        ({"quant_min": 0, "quant_max": 300}, "300"),
    ],
)
def test_codes_that_do_not_fit_are_refused(how: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        qfx.FakeQuantize(**how)  # type: ignore[arg-type]


def test_the_fused_kernel_takes_a_moving_average_only() -> None:
    with pytest.raises(ConfigError, match=r"only works with MovingAverage.*, not with HistogramObserver"):
        qfx.FusedMovingAvgObsFakeQuantize(observer=qfx.HistogramObserver)


KINDS = (
    qfx.default_fake_quant,
    qfx.default_histogram_fake_quant,
    qfx.default_per_channel_weight_fake_quant,
    qfx.default_fused_act_fake_quant,
    qfx.default_fused_per_channel_wt_fake_quant,
    qfx.default_embedding_fake_quant,
    qfx.default_fixed_qparams_range_0to1_fake_quant,
)


@pytest.mark.parametrize("kind", KINDS)
def test_state_copies_and_pickles_keep_everything(kind: qfx.ObserverFactory) -> None:
    fake, w = kind(), torch.randn(6, 8)
    fake(w)
    fake.disable_observer()
    again = kind()
    again.load_state_dict(fake.state_dict(), strict=True)
    for other in (again, copy.deepcopy(fake), pickle.loads(pickle.dumps(fake))):
        assert int(other.observer_enabled) == 0
        assert torch.equal(other(w * 2), fake(w * 2))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_it_scripts(kind: qfx.ObserverFactory) -> None:
    fake, script, w = kind(), torch.jit.script(kind()), torch.randn(6, 8)
    assert torch.equal(script(w), fake(w))
    script.apply(qfx.disable_observer)
    fake.apply(qfx.disable_observer)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(w * 3), fake(w * 3))


def test_the_switches_of_a_model_leave_other_modules_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), qfx.default_fake_quant(), qfx.MinMaxObserver())
    for switch, name, value in (
        (qfx.disable_fake_quant, "fake_quant_enabled", 0),
        (qfx.enable_fake_quant, "fake_quant_enabled", 1),
        (qfx.disable_observer, "observer_enabled", 0),
        (qfx.enable_observer, "observer_enabled", 1),
    ):
        model.apply(switch)
        assert int(getattr(model[1], name)) == value


def test_every_default_makes_a_module_of_its_own() -> None:
    from qfx import fake_quantize

    names = [n for n in fake_quantize.__all__ if n.startswith(("default_", "fused_"))]
    assert len(names) == 16
    for name in names:
        factory = getattr(qfx, name)
        assert factory() is not factory()
        assert isinstance(factory(), qfx.FakeQuantizeBase)


@pytest.mark.parametrize(
    ("codes", "said"),
    [((7, 3), "less than or equal to quant_max"), ((-300, 200), "quant_min out of bound"), ((0, 700), "quant_max out")],
)
def test_codes_that_the_dtype_does_not_have_are_refused(codes: tuple[int, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        qfx.FakeQuantize(quant_min=codes[0], quant_max=codes[1])
