from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from qfx.nn.quantized.saved import Loading, Saved, SavedScale


class Named(Saved):
    _version = _SAVED_SINCE = 2

    def __init__(self) -> None:
        super().__init__()
        self.name, self.fc = "here", nn.Linear(2, 2)

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        self.name = loading.take("name", self.name)


class Scaled(SavedScale):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.zero_point = 1.0, 0


@pytest.mark.parametrize("scale", [0.5, 0.1])
def test_numbers_go_through_a_state_dict_unrounded(scale: float) -> None:
    saved, loaded = Scaled(), Scaled()
    saved.scale, saved.zero_point = scale, 7
    state = saved.state_dict()
    assert list(state) == ["scale", "zero_point"]
    assert state["scale"].dtype == (torch.float if scale == 0.5 else torch.double)
    assert not loaded.load_state_dict(state).missing_keys
    assert (loaded.scale, loaded.zero_point) == (scale, 7)


def test_what_is_not_there_is_missing_and_stays() -> None:
    loaded = Scaled()
    assert loaded.load_state_dict({"scale": torch.tensor(2.0)}, strict=False).missing_keys == ["zero_point"]
    assert (loaded.scale, loaded.zero_point) == (2.0, 0)


def test_an_older_layout_lacks_nothing() -> None:
    module = Named()
    state = OrderedDict(module.fc.state_dict(prefix="fc."))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    assert not module.load_state_dict(state).missing_keys
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r'Missing key.*"name"'):
        module.load_state_dict(state)
    module.load_state_dict(state | {"name": "there"})
    assert module.name == "there"


def test_a_weight_that_does_not_fit_is_an_error_that_names_it() -> None:
    errors: list[str] = []
    loading = Loading({"fc.weight": torch.ones(3)}, "fc.", [], errors)
    assert "weight" in loading
    assert not loading.fits("weight", loading.take("weight", None), torch.Size([2]))
    assert errors == ["size mismatch for fc.weight: the state has (3,), this module (2,)"]
    assert "weight" not in loading
