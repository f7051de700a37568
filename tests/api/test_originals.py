"""What stays of a float model in a converted one on request: configurations of modules, weights behind packed ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w, self.b)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.first, self.second = nn.Linear(4, 4), Layer(bias=True), Layer(bias=False)
        self.w, self.v, self.gate = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4)), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(self.fc(x)))
        return self.gate(F.relu(F.linear(F.linear(x, self.w), self.v)))


def prepared(config: qfx.QConfigMapping) -> tuple[Net, qfx.ObservedGraphModule]:
    model = Net().eval()
    made = qfx.prepare_fx(model, config, (X,))
    made(X)
    return model, made


CONFIGS = {
    "static": qfx.get_default_qconfig_mapping("x86"),
    "int8": qfx.QConfigMapping().set_object_type(F.linear, qfx.default_dynamic_qconfig),
    "half floats": qfx.QConfigMapping().set_object_type(F.linear, qfx.float16_dynamic_qconfig),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_float_weights_of_functions(kind: str) -> None:
    model, observed = prepared(CONFIGS[kind])
    int8 = qfx.convert_fx(observed, keep_original_weights=True)
    expected = {
        "first_packed_weight_0": (model.first.w, model.first.b),
        "second_packed_weight_0": (model.second.w, None),
        "_packed_weight_0": (model.w, None),
        "_packed_weight_1": (model.v, None),
    }
    assert set(int8.rebuilt) == set(expected)
    for made in (int8, copy.deepcopy(int8)):
        assert set(made.original_weights_lookup) == set(expected)
        for name, (weight, bias) in expected.items():
            kept = made.original_weights_lookup[name]
            assert torch.equal(kept[0], weight)
            assert (kept[1] is None) if bias is None else torch.equal(kept[1], bias)
    assert not hasattr(qfx.convert_fx(observed), "original_weights_lookup")


def test_names_of_packed_weights_are_names() -> None:
    model = nn.Sequential(Layer(bias=True))
    model.add_module("odd: 5", Layer(bias=False))
    observed = qfx.prepare_fx(model.eval(), CONFIGS["static"], (X,))
    observed(X)
    assert set(qfx.convert_fx(observed).rebuilt) == {"0_packed_weight_0", "odd_5_packed_weight_0"}


def test_names_of_packed_weights_leave_the_users_alone() -> None:
    model = Net().eval()
    model.register_buffer("_packed_weight_0", torch.ones(1))
    model.gate = nn.Identity()
    observed = qfx.prepare_fx(
        model, CONFIGS["static"], (X,), qfx.PrepareCustomConfig().set_preserved_attributes(["_packed_weight_0"])
    )
    observed(X)
    keep = qfx.ConvertCustomConfig().set_preserved_attributes(["_packed_weight_0"])
    int8 = qfx.convert_fx(observed, keep)
    assert torch.equal(int8._packed_weight_0, torch.ones(1))
    assert {"_packed_weight_1", "_packed_weight_2"} < set(int8.rebuilt)


@pytest.mark.parametrize("convert", [qfx.convert_fx, qfx.convert_to_reference_fx])
def test_modules_carry_their_configuration_until_they_are_converted(convert: Any) -> None:
    model, observed = prepared(CONFIGS["static"])
    assert observed.fc.qconfig is CONFIGS["static"].global_qconfig
    assert hasattr(observed.gate, "qconfig")
    assert not hasattr(model.fc, "qconfig")
    assert not any(hasattr(module, "qconfig") for module in convert(observed).modules())
    assert hasattr(convert(observed, _remove_qconfig=False).gate, "qconfig")
    assert hasattr(observed.gate, "qconfig")


def test_a_layer_left_out_at_conversion_is_no_part_of_the_prepared_model() -> None:
    mapping = copy.deepcopy(CONFIGS["static"]).set_module_name("fc", qfx.get_default_qconfig("x86"))
    _, observed = prepared(mapping)
    int8 = qfx.convert_fx(observed, qconfig_mapping=copy.deepcopy(mapping).set_module_name("fc", None))
    assert type(int8.fc) is nn.Linear
    assert int8.fc is not observed.fc
    assert int8.fc.weight is not observed.fc.weight
