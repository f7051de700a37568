from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qfx.errors import ConfigError, ObservationError
from qfx.observers import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    UniformQuantizationObserverBase,
)

ALL = [
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    HistogramObserver,
]
PER_CHANNEL = [PerChannelMinMaxObserver, MovingAveragePerChannelMinMaxObserver]
PER_TENSOR = [MinMaxObserver, MovingAverageMinMaxObserver]
SCALAR = [MinMaxObserver, MovingAverageMinMaxObserver, HistogramObserver]


def test_min_max_keeps_the_extremes_of_all_batches() -> None:
    observer = MinMaxObserver()
    for batch in (torch.tensor([1.0, 2.0]), torch.tensor([[-3.0]]), torch.tensor(0.5)):
        assert observer(batch) is batch
    assert (observer.min_val.item(), observer.max_val.item()) == (-3.0, 2.0)
    assert repr(observer) == "MinMaxObserver(min_val=-3.0, max_val=2.0)"


def test_moving_average_weighs_the_newest_batch() -> None:
    observer = MovingAverageMinMaxObserver(averaging_constant=0.25)
    observer(torch.tensor([0.0, 4.0]))
    observer(torch.tensor([-4.0, 8.0]))
    assert (observer.min_val.item(), observer.max_val.item()) == (-1.0, 5.0)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_per_channel_takes_any_axis(axis: int) -> None:
    x = torch.randn(3, 4, 5)
    observer = PerChannelMinMaxObserver(ch_axis=axis)
    observer(x * 0.5)
    observer(x)
    others = [d for d in range(3) if d != axis % 3]
    assert torch.equal(observer.min_val, torch.minimum(x, x * 0.5).amin(others))
    assert torch.equal(observer.max_val, torch.maximum(x, x * 0.5).amax(others))


def test_per_channel_takes_vectors_channel_by_element() -> None:
    observer = PerChannelMinMaxObserver()
    observer(torch.tensor([1.0, -2.0]))
    assert observer.min_val.tolist() == [1.0, -2.0]


def test_moving_average_per_channel() -> None:
    observer = MovingAveragePerChannelMinMaxObserver(averaging_constant=0.5)
    observer(torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
    observer(torch.tensor([[-2.0, 2.0], [1.0, 5.0]]))
    assert observer.min_val.tolist() == [-1.0, 1.0]
    assert observer.max_val.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("cls", ALL)
def test_other_float_dtypes_are_taken(cls: type[UniformQuantizationObserverBase], dtype: torch.dtype) -> None:
    observer = cls()
    x = torch.tensor([[-1.0, 0.5], [0.25, 2.0]], dtype=dtype)
    assert observer(x).dtype == dtype
    assert observer.min_val.dtype == torch.float32
    assert observer.min_val.min().item() == -1.0
    assert observer.problems() == []


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("cls", ALL)
def test_integers_are_taken_as_floats_and_mentioned(
    cls: type[UniformQuantizationObserverBase], dtype: torch.dtype
) -> None:
    observer = cls()
    observer(torch.tensor([[0, 1], [1, 0]]).to(dtype))
    assert observer.max_val.max().item() == 1.0
    assert observer.problems() == ["saw integers, which it took as floats"]


@pytest.mark.parametrize("cls", ALL)
def test_complex_and_quantized_tensors_are_refused(cls: type[UniformQuantizationObserverBase]) -> None:
    with pytest.raises(ObservationError, match="complex64"):
        cls()(torch.zeros(2, 2, dtype=torch.complex64))
    with pytest.raises(ObservationError, match="dequantize"):
        cls()(torch.quantize_per_tensor(torch.zeros(2, 2), 1.0, 0, torch.quint8))


@pytest.mark.parametrize("cls", ALL)
def test_never_run_gives_scale_one_and_one_warning(cls: type[UniformQuantizationObserverBase]) -> None:
    observer = cls()
    assert observer.problems() == ["never ran"]
    assert (observer.seen_shape, observer.batches) == ([], 0)
    with pytest.warns(UserWarning, match="never ran") as caught:
        scale, zero_point = observer.calculate_qparams()
    assert len(caught) == 1
    assert (scale.tolist(), zero_point.tolist()) == ([1.0], [0])


@pytest.mark.parametrize("cls", ALL)
def test_empty_tensors_are_ignored_but_told_apart(cls: type[UniformQuantizationObserverBase]) -> None:
    observer = cls()
    observer(torch.zeros(0, 3))
    assert observer.problems() == ["saw only empty tensors"]
    observer(torch.ones(2, 3))
    observer(torch.zeros(0, 3))
    assert observer.problems() == []
    assert (observer.seen_shape, observer.batches) == ([2, 3], 1)


@pytest.mark.parametrize("cls", ALL)
def test_nan_and_infinity_are_found(cls: type[UniformQuantizationObserverBase]) -> None:
    for value, problem in ((float("nan"), "saw NaN"), (float("inf"), "saw infinity"), (float("-inf"), "saw infinity")):
        observer = cls()
        observer(torch.tensor([[1.0, value], [0.5, 2.0]]))
        assert observer.problems() == [problem]


@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_range_is_that_of_the_finite_values(
    cls: type[UniformQuantizationObserverBase], bad: float, dtype: torch.dtype
) -> None:
    spoiled, clean = cls(), cls()
    for number in range(3):
        x = torch.randn(3, 8).to(dtype)
        x[:, 0] = 0.25  # inside the range, so the clean tensor has the range of the finite values
        clean(x)
        if number:
            x[1, 0] = bad
        assert spoiled(x) is x
    for mine, expected in zip(spoiled.calculate_qparams(), clean.calculate_qparams(), strict=True):
        assert torch.equal(mine, expected)
    assert spoiled.problems() == ["saw NaN" if bad != bad else "saw infinity"]
    for name, value in clean.state_dict().items():
        assert torch.equal(spoiled.state_dict()[name], value)


@pytest.mark.parametrize("cls", PER_CHANNEL)
def test_a_channel_without_a_finite_value_does_not_spoil_the_others(
    cls: type[UniformQuantizationObserverBase],
) -> None:
    observer, other = cls(), cls()
    x = torch.randn(3, 8)
    other(x)
    expected = other.calculate_qparams()
    x[1] = float("nan")
    observer(x)
    scale, zero_point = observer.calculate_qparams()
    assert scale.isfinite().all()
    assert torch.equal(scale[[0, 2]], expected[0][[0, 2]])
    assert torch.equal(zero_point[[0, 2]], expected[1][[0, 2]])
    assert observer.problems() == ["saw NaN"]
    x[1] = torch.linspace(-1, 1, 8)
    observer(x)  # from now on the channel has a range
    assert float(observer.min_val[1]) == -1.0
    assert float(observer.max_val[1]) == 1.0


@pytest.mark.parametrize("cls", PER_TENSOR)
def test_a_tensor_without_a_finite_value_changes_no_range(cls: type[UniformQuantizationObserverBase]) -> None:
    observer = cls()
    observer(torch.full((3,), float("inf")))
    assert observer.problems() == ["saw no finite value", "saw infinity"]
    observer(torch.tensor([-1.0, 2.0]))
    before = observer.calculate_qparams()
    observer(torch.full((3,), float("nan")))
    assert torch.equal(observer.calculate_qparams()[0], before[0])
    assert observer.problems() == ["saw NaN", "saw infinity"]


def test_a_range_too_wide_for_float32_is_finite() -> None:
    observer = MinMaxObserver()
    observer(torch.tensor([-3e38, 3e38]))
    assert observer.problems() == []
    assert (float(observer.min_val), float(observer.max_val)) == (-float(torch.tensor(3e38)), float(torch.tensor(3e38)))


@pytest.mark.parametrize("cls", ALL)
def test_reset_forgets_everything(cls: type[UniformQuantizationObserverBase]) -> None:
    observer, fresh = cls(), cls()
    observer(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
    observer.reset_min_max_vals()
    assert observer.problems() == ["never ran"]
    assert observer.seen_shape == []
    for name, value in fresh.state_dict().items():
        assert torch.equal(observer.state_dict()[name], value)


@pytest.mark.parametrize("cls", ALL)
def test_gradients_pass_and_are_not_kept(cls: type[UniformQuantizationObserverBase]) -> None:
    observer = cls()
    x = torch.randn(2, 3, requires_grad=True)
    observer(observer(x)).sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 3))
    assert not observer.min_val.requires_grad


@pytest.mark.parametrize("cls", ALL)
def test_copies_pickles_and_state_dicts_keep_the_result(cls: type[UniformQuantizationObserverBase]) -> None:
    observer = cls(dtype=torch.qint8)
    observer(torch.randn(3, 100))
    observer(torch.randn(3, 100) * 2)
    loaded = cls(dtype=torch.qint8)
    loaded.load_state_dict(observer.state_dict())
    assert next(iter(observer.state_dict())) == "eps"
    assert observer.state_dict()._metadata[""]["version"] == 3
    for other in (copy.deepcopy(observer), pickle.loads(pickle.dumps(observer)), loaded):
        for mine, theirs in zip(observer.calculate_qparams(), other.calculate_qparams(), strict=True):
            assert torch.equal(mine, theirs)


def test_old_state_dicts_load() -> None:
    channels = PerChannelMinMaxObserver()
    old = {"min_vals": torch.tensor([-1.0, 0.0]), "max_vals": torch.tensor([1.0, 2.0])}
    channels.load_state_dict(_versioned(old, 1))
    assert channels.max_val.tolist() == [1.0, 2.0]
    for cls in SCALAR:
        observer = cls()
        extra = {"histogram": torch.ones(2048)} if cls is HistogramObserver else {}
        observer.load_state_dict(
            _versioned({"min_val": torch.tensor([-1.0]), "max_val": torch.tensor([1.0]), **extra}, 1)
        )
        assert (observer.min_val.shape, observer.min_val.item()) == ((), -1.0)
        observer.load_state_dict(_versioned({"min_val": torch.tensor([]), "max_val": torch.tensor([]), **extra}, 1))
        assert observer.problems() == ["never ran"]


def _versioned(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    found = nn.Module().state_dict()
    found.update(state)
    found._metadata[""] = {"version": version}
    return found


def test_qparams_say_it_all_at_once() -> None:
    observer = PerChannelMinMaxObserver(ch_axis=1, dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    observer(torch.randn(2, 3))
    q = observer.qparams()
    assert (q.axis, q.dtype, q.codes, q.qscheme) == (1, torch.qint8, (-128, 127), torch.per_channel_symmetric)
    assert torch.equal(q.scale, observer.calculate_qparams()[0])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: MinMaxObserver(qscheme=torch.per_channel_affine),
            "only support torch.per_tensor_symmetric and",
        ),
        (
            lambda: PerChannelMinMaxObserver(qscheme=torch.per_tensor_affine),
            "only support torch.per_channel",
        ),
        (lambda: HistogramObserver(qscheme=torch.per_channel_affine), "HistogramObserver's qscheme only support"),
        (lambda: MinMaxObserver(dtype=torch.float16), "only works for integer dtypes .* got torch.float16"),
        (lambda: HistogramObserver(dtype=torch.float8_e4m3fn), "float8_e4m3fn does not stand for integer codes"),
        (lambda: MinMaxObserver(quant_min=1, quant_max=9), "must include 0. The codes are 1..9"),
        (lambda: MinMaxObserver(dtype=torch.qint8, quant_min=-200, quant_max=100), "more than the 256 codes"),
        (lambda: PerChannelMinMaxObserver(is_dynamic=True), "doesn't support dynamic quantization, as it gathers"),
        (lambda: HistogramObserver(is_dynamic=True), "doesn't support dynamic quantization, as it gathers"),
        (lambda: MovingAverageMinMaxObserver(is_dynamic=True), "for averaging constant of 0.01; use 1"),
        (
            lambda: MinMaxObserver(qscheme=torch.per_tensor_symmetric, reduce_range=True),
            "Cannot reduce range for symmetric quantization to torch.quint8",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_once(make: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MinMaxObserver(qscheme=torch.per_channel_affine),
        lambda: HistogramObserver(is_dynamic=True),
        lambda: PerChannelMinMaxObserver(qscheme=torch.per_channel_symmetric, reduce_range=True),
    ],
)
def test_what_has_a_meaning_and_is_not_there_is_not_implemented(make: object) -> None:
    with pytest.raises(NotImplementedError):
        make()


@pytest.mark.parametrize("cls", [PerChannelMinMaxObserver, MovingAveragePerChannelMinMaxObserver, MinMaxObserver])
def test_buffers_stay_the_same_objects(cls: type) -> None:
    observer = cls()
    held = dict(observer.named_buffers())
    for _ in range(2):
        observer(torch.randn(4, 3))
    assert all(held[name] is buffer for name, buffer in observer.named_buffers())
    assert held["min_val"].data_ptr() == observer.min_val.data_ptr()


def test_a_dynamic_moving_average_keeps_the_last_batch() -> None:
    observer = MovingAverageMinMaxObserver(averaging_constant=1, is_dynamic=True)
    observer(torch.tensor([-9.0, 9.0]))
    observer(torch.tensor([0.0, 1.0]))
    assert (observer.min_val.item(), observer.max_val.item(), observer.is_dynamic) == (0.0, 1.0, True)


def test_buffers_go_where_asked() -> None:
    observer = MinMaxObserver(factory_kwargs={"dtype": torch.float64})
    observer(torch.ones(1))
    assert observer.min_val.dtype == torch.float64


EXPORTABLE = [
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
]


@pytest.mark.parametrize("cls", EXPORTABLE)
def test_without_numbers_nothing_is_looked_at(cls: Any) -> None:
    on_meta = cls().to("meta")
    assert on_meta(torch.ones(2, 3, device="meta")).shape == (2, 3)
    assert on_meta.min_val.is_meta
    with FakeTensorMode(allow_non_fake_inputs=True):
        cls()(torch.ones(2, 3))


@pytest.mark.parametrize("cls", [MinMaxObserver, MovingAverageMinMaxObserver])
def test_a_recorded_graph_observes(cls: Any) -> None:
    recorded, plain, batches = cls(), cls(), [torch.randn(4, 3) for _ in range(3)]
    program = torch.export.export(recorded, (batches[0],)).module()
    for batch in batches:
        program(batch)
        plain(batch)
    assert torch.equal(program.min_val, plain.min_val)
    assert torch.equal(program.max_val, plain.max_val)
