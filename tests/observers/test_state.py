from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import ObservationError
from qfx.observers import (
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    get_observer_state_dict,
    load_observer_state_dict,
)


def prepared(channels: int = 4) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, channels))
    model.add_module("activation_post_process_0", HistogramObserver(bins=16))
    model.add_module("inner", nn.Sequential())
    model.inner.add_module("activation_post_process_1", PerChannelMinMaxObserver(ch_axis=1))
    model.inner.add_module("weight_fake_quant", MinMaxObserver())
    return model


def test_what_observers_saw_moves_to_another_model() -> None:
    source, target = prepared(), prepared()
    source(torch.randn(5, 3))
    assert get_observer_state_dict(source[0]) == {}
    saved = get_observer_state_dict(source)
    assert all("activation_post_process" in key for key in saved)
    weight = target[0].weight.clone()
    load_observer_state_dict(target, saved)
    assert torch.equal(target[0].weight, weight)
    for mine, theirs in zip(get_observer_state_dict(target).values(), saved.values(), strict=True):
        assert torch.equal(mine, theirs)
    assert target.inner.activation_post_process_1.min_val.shape == (4,)
    assert saved._metadata["activation_post_process_0"] == {"version": 3}


def test_a_plain_dict_loads_too() -> None:
    source, target = prepared(), prepared()
    source(torch.randn(5, 3))
    load_observer_state_dict(target, dict(get_observer_state_dict(source)))
    assert torch.equal(target.activation_post_process_0.histogram, source.activation_post_process_0.histogram)


def test_differences_are_named() -> None:
    source = prepared()
    source(torch.randn(5, 3))
    saved = get_observer_state_dict(source)
    del saved["activation_post_process_0.min_val"]
    with pytest.raises(ObservationError, match=r"missing \['activation_post_process_0.min_val'\]"):
        load_observer_state_dict(prepared(), saved)
    saved = get_observer_state_dict(source)
    saved["gone.activation_post_process_7.min_val"] = torch.zeros(())
    with pytest.raises(ObservationError, match=r"unexpected \['gone.activation_post_process_7.min_val'\]"):
        load_observer_state_dict(prepared(), saved)
    saved = get_observer_state_dict(source)
    saved["activation_post_process_0.histogram"] = torch.zeros(3)
    with pytest.raises(ObservationError, match=r"not fitting .*histogram"):
        load_observer_state_dict(prepared(), saved)


@pytest.mark.parametrize("qconfig", [qfx.default_qat_qconfig, qfx.get_default_qat_qconfig("x86")])
def test_a_model_that_trains_takes_back_what_it_gave(qconfig: qfx.QConfig) -> None:
    def made() -> nn.Module:
        model = nn.Sequential(nn.Linear(5, 5), nn.ReLU()).train()
        return qfx.prepare_qat_fx(model, qfx.QConfigMapping().set_global(qconfig), (torch.randn(2, 5),))

    source, target = made(), made()
    source(torch.randn(2, 5))
    saved = get_observer_state_dict(source)
    load_observer_state_dict(target, saved)
    again = get_observer_state_dict(target)
    assert list(again) == list(saved)
    assert all(torch.equal(again[key], value) for key, value in saved.items())
    assert any("weight_fake_quant" in key for key in saved)
