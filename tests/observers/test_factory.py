from __future__ import annotations

import copy
import pickle

import pytest
import torch

from qfx import observers
from qfx.observers import HistogramObserver, MinMaxObserver, PlaceholderObserver


def test_a_factory_makes_a_new_observer_each_time() -> None:
    make = MinMaxObserver.with_args(quant_min=0, quant_max=127)
    a, b = make(), make()
    assert a is not b
    assert (a.quant_min, a.quant_max) == (0, 127)


def test_later_arguments_win() -> None:
    make = MinMaxObserver.with_args(dtype=torch.qint8, quant_min=-64, quant_max=63).with_args(quant_max=64)
    assert (make().quant_max, make.p.func, make.p.keywords["quant_min"]) == (64, MinMaxObserver, -64)
    assert make(quant_max=65).quant_max == 65


def test_computed_arguments_are_computed_at_each_call() -> None:
    seen: list[int] = []

    def count() -> int:
        seen.append(1)
        return len(seen)

    make = HistogramObserver.with_callable_args(bins=count).with_args(dtype=torch.qint8)
    assert [make().bins, make().bins] == [1, 2]
    assert make(bins=7).bins == 7
    assert make.with_args(bins=9)().bins == 9
    assert len(seen) == 2
    assert make.with_callable_args(quant_min=lambda: 0, quant_max=lambda: 9)().quant_max == 9


def test_factories_survive_copies_and_show_what_they_make() -> None:
    make = MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    for other in (copy.deepcopy(make), pickle.loads(pickle.dumps(make)), copy.copy(make)):
        assert other().qscheme == torch.per_tensor_symmetric
        assert repr(other) == repr(make)
        assert other.p.keywords == make.p.keywords
    assert "MinMaxObserver" in repr(make)
    assert "torch.qint8" in repr(make)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("default_observer", {"dtype": torch.quint8, "quant_min": 0, "quant_max": 127}),
        ("default_histogram_observer", {"dtype": torch.quint8, "quant_min": 0, "quant_max": 127, "bins": 2048}),
        ("default_weight_observer", {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric}),
        ("default_per_channel_weight_observer", {"qscheme": torch.per_channel_symmetric, "ch_axis": 0}),
        ("weight_observer_range_neg_127_to_127", {"quant_min": -127, "quant_max": 127}),
        (
            "per_channel_weight_observer_range_neg_127_to_127",
            {"quant_min": -127, "qscheme": torch.per_channel_symmetric},
        ),
        ("default_dynamic_quant_observer", {"is_dynamic": True, "dtype": torch.quint8, "quant_max": 255}),
        ("default_float_qparams_observer", {"qscheme": torch.per_channel_affine_float_qparams, "quant_max": 255}),
        ("default_float_qparams_observer_4bit", {"dtype": torch.quint4x2, "quant_max": 15}),
        ("default_fixed_qparams_range_0to1_observer", {"quant_max": 255}),
        ("default_fixed_qparams_range_neg1to1_observer", {"quant_max": 255}),
        ("default_placeholder_observer", {"dtype": torch.float32}),
        ("default_debug_observer", {"dtype": torch.quint8}),
        ("default_reuse_input_observer", {"dtype": torch.quint8}),
    ],
)
def test_defaults(name: str, facts: dict[str, object]) -> None:
    made = getattr(observers, name)()
    assert {fact: getattr(made, fact) for fact in facts} == facts


def test_every_public_name_exists() -> None:
    assert all(hasattr(observers, name) for name in observers.__all__)
    assert {"solve", "merge", "ObserverBase", "get_observer_state_dict"} <= set(observers.__all__)


def test_fixed_defaults_have_the_ranges_of_their_names() -> None:
    scale, zero_point = observers.default_fixed_qparams_range_neg1to1_observer().calculate_qparams()
    assert (scale.item(), zero_point.item()) == (1 / 128, 128)
    assert observers.default_symmetric_fixed_qparams_observer is observers.default_fixed_qparams_range_neg1to1_observer
    assert observers.default_affine_fixed_qparams_observer is observers.default_fixed_qparams_range_0to1_observer


def test_a_keyword_that_no_observer_has_is_refused() -> None:
    with pytest.raises(TypeError):
        PlaceholderObserver.with_args(bits=8)()
