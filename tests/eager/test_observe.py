"""Who gets a configuration, an observer, a hook."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import qfx
from qfx.config.qconfig_checks import PerChannelError
from qfx.eager import hooks, observe, places, private_names
from qfx.eager.errors import ModuleStateError
from qfx.errors import ConfigError, ObservationError
from qfx.nn import intrinsic, quantized

QCONFIG = qfx.default_qconfig


def observed(model: nn.Module) -> set[str]:
    return {
        path
        for path, module in model.named_modules()
        if isinstance(getattr(module, "activation_post_process", None), (qfx.ObserverBase, qfx.FakeQuantizeBase))
        and not isinstance(module, qfx.FakeQuantizeBase)
    }


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.fc(x))


def test_the_most_particular_configuration_wins() -> None:
    a, b, c, d = (qfx.QConfig(qfx.MinMaxObserver, qfx.default_weight_observer.with_args(eps=e)) for e in (1, 2, 3, 4))
    model = Nested()
    model.body[2].qconfig = d
    qfx.propagate_qconfig_(model, {"": a, nn.Linear: b, "body": c, "body.0": None})
    found = {path: module.qconfig for path, module in model.named_modules()}
    assert found == {"": a, "fc": b, "body": c, "body.0": None, "body.1": c, "body.2": d}


def test_a_name_the_model_does_not_have_is_told() -> None:
    with pytest.warns(UserWarning, match=r"names 'bdy', which the model does not have"):
        qfx.propagate_qconfig_(Nested(), {"bdy": QCONFIG, nn.Conv2d: QCONFIG})


def test_non_traceable_modules_inherit_nothing() -> None:
    model = nn.Sequential(Nested(), Nested())
    model.qconfig = QCONFIG
    named = qfx.prepare(model, prepare_custom_config_dict={"non_traceable_module_name": ["0.body", "1"]})
    assert observed(named) == {"0.fc"}
    by_class = qfx.prepare(model, prepare_custom_config_dict={"non_traceable_module_class": [nn.Sequential]})
    assert observed(by_class) == {"0.fc", "1.fc"}


def test_what_is_no_configuration_is_refused() -> None:
    model = Nested()
    model.body[0].qconfig = "x86"
    with pytest.raises(ConfigError, match=r"the qconfig of this Linear is 'x86'.*QConfig") as caught:
        qfx.propagate_qconfig_(model)
    assert caught.value.__notes__ == ["at body.0 (Linear)"]


def test_transposed_convolutions_per_channel() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ConvTranspose2d(1, 1, 1))
    model.qconfig = qfx.get_default_qconfig("fbgemm")
    with pytest.raises(AssertionError) as caught:
        qfx.prepare(model)
    assert isinstance(caught.value, PerChannelError)
    assert str(caught.value) == "Per channel weight observer is not supported yet for ConvTranspose{n}d."
    assert "at 1 (ConvTranspose2d)" in caught.value.__notes__
    model[1].qconfig = None
    assert observed(qfx.prepare(model)) == {"0"}


def test_leaves_fused_and_functional_modules_are_observed() -> None:
    model = nn.Sequential(
        qfx.QuantStub(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.ReLU6(), nn.Sigmoid(),
        qfx.DeQuantStub(),
    ).eval()  # fmt: skip
    model.add_module("add", quantized.FloatFunctional())
    model = qfx.fuse_modules(model, ["1", "2", "3"])
    model.qconfig = QCONFIG
    prepared = qfx.prepare(model)
    assert observed(prepared) == {"0", "1", "5", "add"}
    assert isinstance(prepared[1], intrinsic.ConvReLU2d)
    assert observed(model) == set()  # a copy was prepared
    assert "qconfig" not in model[0].__dict__


def test_lists_of_classes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), Nested()).eval()
    model.qconfig = QCONFIG
    assert observed(qfx.prepare(model, allow_list={nn.Tanh})) == {"1"}
    assert observed(qfx.prepare(model, observer_non_leaf_module_list=[Nested])) == {"0", "2"}


def test_known_ranges_are_for_training() -> None:
    model = nn.Sequential(nn.Sigmoid(), nn.Tanh())
    model.qconfig = qfx.default_qat_qconfig
    prepared = qfx.prepare_qat(model.train())
    assert float(prepared[0].activation_post_process.scale) == 1 / 256
    assert int(prepared[1].activation_post_process.zero_point) == 128
    assert observed(qfx.prepare(model.eval())) == set()


def test_a_module_in_two_places_is_observed_and_converted_once() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(shared), shared)
    model.qconfig = QCONFIG
    prepared = qfx.prepare(model)
    assert len(prepared[0]._forward_hooks) == 1
    prepared(torch.randn(3, 4))
    assert prepared[0].activation_post_process.batches == 3
    converted = qfx.convert(prepared)
    assert converted[0] is converted[2] is converted[1][0]
    assert type(converted[0]) is quantized.Linear


def test_preparing_twice_hooks_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.qconfig = QCONFIG
    assert len(qfx.prepare(qfx.prepare(model))[0]._forward_hooks) == 1


def test_no_configuration_at_all_is_told() -> None:
    with pytest.warns(UserWarning, match="None of the submodule got qconfig applied") as caught:
        qfx.prepare(Nested())
    assert caught[0].filename == __file__


def test_activations_may_stay_float() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.qconfig = qfx.QConfig(None, qfx.default_weight_observer)
    assert observed(qfx.prepare(model)) == set()


def test_a_prepared_model_is_copied_and_pickled() -> None:
    model = qfx.QuantWrapper(Nested())
    model.qconfig = qfx.get_default_qconfig("x86")
    prepared = qfx.prepare(model.eval())
    x = torch.randn(3, 4)
    prepared(x)
    again = pickle.loads(pickle.dumps(copy.deepcopy(prepared)))
    assert torch.equal(qfx.convert(again)(x), qfx.convert(prepared)(x))


def test_parametrized_layers_are_leaves() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))
    model.qconfig = QCONFIG
    prepared = qfx.prepare(model.eval())
    assert observed(prepared) == {"0"}
    x = torch.randn(3, 4)
    prepared(x)
    q = torch.quantize_per_tensor(x, 0.05, 64, torch.quint8)
    torch.testing.assert_close(qfx.convert(prepared)(q).dequantize(), model(x), rtol=0, atol=0.1)


class Several(nn.Module):
    def forward(self, x: torch.Tensor, y: int = 1) -> tuple[torch.Tensor, int]:
        return x, y


def test_hooks_refuse_what_cannot_be_observed() -> None:
    model = nn.Sequential(nn.GRU(4, 4))
    model.qconfig = QCONFIG
    prepared = qfx.prepare(model)
    with pytest.raises(ObservationError, match=r"this GRU returns a tuple.*leave the module float.*dynamically"):
        prepared(torch.randn(2, 1, 4))


def test_the_input_hook_keeps_other_arguments() -> None:
    module = Several()
    module.activation_post_process = qfx.MinMaxObserver()
    hooks.register_observer_hook(module, pre_hook=True)
    x = torch.randn(3)
    assert module(x, 5) == (x, 5)
    assert float(module.activation_post_process.max_val) == float(x.max())
    with pytest.raises(ObservationError, match="Several was called with keywords only"):
        module(x=x)


def test_a_hook_needs_an_observer() -> None:
    with pytest.raises(ObservationError, match="Expect activation_post_process attribute already attached"):
        private_names._register_activation_post_process_hook(nn.Linear(1, 1))


def test_memoryless_observers_see_the_input() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    model.qconfig = qfx.QConfig(qfx.MovingAverageMinMaxObserver.with_args(averaging_constant=1), nn.Identity)
    prepared = qfx.prepare(model)
    prepared(torch.full((1, 4), 7.0))
    assert float(prepared[0].activation_post_process.max_val) == 7
    observe.remove_qconfig(prepared)
    assert not prepared[0]._forward_pre_hooks


def test_removal_leaves_only_what_was_there() -> None:
    model = nn.Sequential(nn.Linear(4, 2), quantized.FloatFunctional())
    keys = set(model.state_dict())

    def mine(*_: Any) -> None:
        pass

    model[0].register_forward_hook(mine)
    model.qconfig = QCONFIG
    prepared = qfx.prepare(model)
    found: dict[str, Any] = {}
    private_names._get_observer_dict(prepared, found, "net")
    assert set(found) == {"net.0.activation_post_process", "net.1.activation_post_process"}
    private_names._remove_qconfig(prepared)
    assert set(prepared.state_dict()) == keys
    assert list(prepared[0]._forward_hooks.values()) == [mine]
    assert not any("qconfig" in module.__dict__ for module in prepared.modules())


def test_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "devices_of", lambda module: {torch.device("cpu"), torch.device("cuda:0")})
    model = Nested()
    model.qconfig = QCONFIG
    with pytest.raises(ModuleStateError, match=r"prepare only works with cpu or single-device.*cpu and cuda:0"):
        qfx.prepare(model)


def test_observers_follow_the_model_elsewhere() -> None:
    model = nn.Sequential(nn.Linear(4, 4, device="meta"))
    model.qconfig = qfx.get_default_qconfig("x86")
    qfx.propagate_qconfig_(model)
    assert model[0].qconfig.weight().eps.device.type == "meta"
    assert places.devices_of(model) == set()


def test_training_is_for_models_in_training() -> None:
    with pytest.raises(AssertionError, match="prepare_qat only works on models in training mode"):
        qfx.prepare_qat(Nested().eval())


def test_wrapping_leaves() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(shared, nn.ReLU()))
    shared.qconfig = QCONFIG
    wrapped = qfx.add_quant_dequant(model)
    assert wrapped is model
    assert type(model[0]) is qfx.QuantWrapper
    assert model[1][0] is model[0]
    assert type(model[1][1]) is nn.ReLU
    assert model[0].quant.qconfig is QCONFIG


def test_quiet() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = qfx.QuantWrapper(Nested()).eval()
        model.qconfig = qfx.get_default_qconfig("x86")
        qfx.quantize(model, qfx.default_eval_fn, [[(torch.randn(2, 4), None)]])
