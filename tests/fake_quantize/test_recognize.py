from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx.fake_quantize import private_names, recognize

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

OBSERVERS = [qfx.MinMaxObserver, qfx.HistogramObserver, qfx.PerChannelMinMaxObserver, qfx.PlaceholderObserver]
FAKE = [qfx.default_fake_quant, qfx.default_fused_act_fake_quant]


@pytest.mark.parametrize("make", [*OBSERVERS, *FAKE, qfx.default_fixed_qparams_range_0to1_fake_quant])
def test_observers_and_fake_quantize_modules(make: type) -> None:
    assert recognize.is_activation_post_process(make())


def test_other_modules() -> None:
    assert not recognize.is_activation_post_process(nn.Linear(1, 1))
    assert not recognize.is_activation_post_process(torch.jit.script(nn.Linear(1, 1)))
    assert recognize.class_of_script(nn.Linear(1, 1)) is None


@pytest.mark.parametrize("cls", OBSERVERS[:3])
def test_scripted_observers(cls: type[nn.Module]) -> None:
    scripted = torch.jit.script(cls())
    again = torch.jit.script(cls())
    for each in (scripted, again):  # the second one has a mangled name
        assert recognize.is_activation_post_process(each)
        assert recognize.is_observer_script_module(each, "quantization.observer")
        assert recognize.is_observer_script_module(each, f"quantization.observer.{cls.__name__}")
        assert recognize.is_observer_script_module(each, cls.__name__)
        assert not recognize.is_observer_script_module(each, "quantization.observer.NoopObserver")
        assert not recognize.is_fake_quant_script_module(each)
        assert recognize.is_per_channel_script_obs_instance(each) is (cls is qfx.PerChannelMinMaxObserver)
    assert not recognize.is_observer_script_module(cls(), "quantization.observer")
    assert not recognize.is_per_channel_script_obs_instance(cls())


@pytest.mark.parametrize("make", FAKE)
def test_scripted_fake_quantize_modules(make: object) -> None:
    module = make()  # type: ignore[operator]
    assert recognize.is_fake_quant_script_module(torch.jit.script(module))
    assert not recognize.is_fake_quant_script_module(module)


def test_private_names_are_other_names() -> None:
    assert all(hasattr(private_names, name) and name.startswith("_") for name in private_names.__all__)
    assert private_names._PartialWrapper is qfx.ObserverFactory
    assert private_names._is_per_tensor(torch.per_tensor_symmetric)
    assert not private_names._is_per_channel(torch.per_tensor_symmetric)
    assert private_names._is_symmetric_quant(torch.per_channel_symmetric)
    assert private_names._is_float_qparams(torch.per_channel_affine_float_qparams)
    made = private_names._with_args(nn.Linear, in_features=1, out_features=1)
    assert type(made()) is nn.Linear
    assert private_names._with_callable_args(nn.Linear, in_features=lambda: 2)(out_features=1).in_features == 2
