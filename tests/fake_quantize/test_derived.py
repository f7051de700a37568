from __future__ import annotations

import pytest
import torch
from torch import Tensor

import qfx
from qfx.errors import ConfigError
from qfx.fake_quantize import DerivedObserverOrFakeQuantize, _DerivedObserverOrFakeQuantize


def product(sources: list[qfx.ObserverOrFakeQuantize]) -> tuple[Tensor, Tensor]:
    activation, weight = (each.calculate_qparams() for each in sources)
    return activation[0] * weight[0], torch.zeros_like(activation[1])


def test_parameters_follow_from_others() -> None:
    activation, weight = qfx.MinMaxObserver(), qfx.default_weight_fake_quant()
    derived = _DerivedObserverOrFakeQuantize(torch.int32, [activation, weight], product, -(2**31), 2**31 - 1)
    x = torch.randn(4, 4)
    assert derived(x) is x
    for scale in (1.0, 3.0):
        activation(x * scale)
        weight(x)
        expected = activation.calculate_qparams()[0] * weight.calculate_qparams()[0]
        assert torch.equal(derived.calculate_qparams()[0], expected)
    assert derived.dtype is torch.int32
    assert list(derived.children()) == []
    assert list(derived.state_dict()) == []


def test_a_scheme_per_channel_needs_an_axis() -> None:
    with pytest.raises(ConfigError, match="say along which axis with ch_axis"):
        _DerivedObserverOrFakeQuantize(torch.int32, [], product, qscheme=torch.per_channel_symmetric)
    made = _DerivedObserverOrFakeQuantize(torch.int32, [], product, qscheme=torch.per_channel_symmetric, ch_axis=0)
    assert made.ch_axis == 0
    assert _DerivedObserverOrFakeQuantize(torch.int32, [], product, qscheme=torch.per_tensor_affine).ch_axis is None


def test_its_names() -> None:
    assert DerivedObserverOrFakeQuantize is _DerivedObserverOrFakeQuantize
    assert issubclass(_DerivedObserverOrFakeQuantize, qfx.ObserverBase)
    assert isinstance(qfx.FakeQuantize(), qfx.ObserverOrFakeQuantize)
    assert isinstance(qfx.MinMaxObserver(), qfx.ObserverOrFakeQuantize)
