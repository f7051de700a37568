from __future__ import annotations

import copy
import operator
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from qfx import config
from qfx.config import QConfig, QConfigMapping, default_qconfig, observer_facts, public_name, qconfig_equals
from qfx.errors import ConfigError
from qfx.observers import MinMaxObserver, PlaceholderObserver

A = QConfig(MinMaxObserver, None)
B = QConfig(None, MinMaxObserver)


def full() -> QConfigMapping:
    return (
        QConfigMapping()
        .set_global(A)
        .set_object_type(nn.Linear, B)
        .set_object_type("reshape", None)
        .set_module_name_regex("layer.*", A)
        .set_module_name("layer1", None)
        .set_module_name_object_type_order("layer1", functional.relu, 2, B)
    )


def test_dict_form() -> None:
    assert full().to_dict() == {
        "": A,
        "object_type": [(nn.Linear, B), ("reshape", None)],
        "module_name_regex": [("layer.*", A)],
        "module_name": [("layer1", None)],
        "module_name_object_type_order": [("layer1", functional.relu, 2, B)],
    }


def test_round_trip() -> None:
    assert QConfigMapping.from_dict(full().to_dict()).to_dict() == full().to_dict()
    assert QConfigMapping.from_dict({}).to_dict() == QConfigMapping().to_dict()
    as_lists = {"object_type": [[nn.Linear, A]], "module_name": {"a": B}}
    assert QConfigMapping.from_dict(as_lists).to_dict()["module_name"] == [("a", B)]


def test_setting_again_replaces_in_place() -> None:
    mapping = full().set_object_type(nn.Linear, None)
    assert mapping.to_dict()["object_type"] == [(nn.Linear, None), ("reshape", None)]


def test_attributes_and_repr() -> None:
    mapping = full()
    assert mapping.global_qconfig is A
    assert list(mapping.object_type_qconfigs) == [nn.Linear, "reshape"]
    assert list(mapping.module_name_object_type_order_qconfigs) == [("layer1", functional.relu, 2)]
    assert repr(QConfigMapping()).splitlines()[:3] == ["QConfigMapping (", " global_qconfig", "  None"]


def test_unknown_keys_warn() -> None:
    with pytest.warns(UserWarning, match="QConfigMapping.from_dict ignores 'object_types'; it reads .*'object_type'"):
        QConfigMapping.from_dict({"object_types": []})


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_an_empty_configuration_is_none(nothing: Any) -> None:
    mapping = QConfigMapping().set_global(nothing).set_module_name("fc", nothing)
    assert mapping.global_qconfig is None
    assert mapping.module_name_qconfigs == {"fc": None}


def test_a_pair_with_the_same_fields_is_taken() -> None:
    theirs = namedtuple("QConfig", ["activation", "weight"])
    assert QConfigMapping().set_global(theirs(MinMaxObserver, None)).global_qconfig == A
    assert type(QConfigMapping().set_global(theirs(MinMaxObserver, None)).global_qconfig) is QConfig


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda m: m.set_global(MinMaxObserver), "holds QConfigs or None.*write QConfig"),
        (lambda m: m.set_module_name("a", "x"), "holds QConfigs or None, got 'x'"),
        (lambda m: m.set_object_type(3, A), "an object type is a module class, a function or the name.*got 3"),
        (lambda m: m.set_module_name(nn.Linear, A), "a module_name is a string, got <class"),
        (lambda m: m.set_module_name_regex(None, A), "a module_name_regex is a string, got None"),
        (lambda m: m.set_module_name_object_type_order("a", nn.Linear, -1, A), "counts from 0, got -1"),
        (lambda m: m.set_module_name_object_type_order("a", nn.Linear, "0", A), "counts from 0, got '0'"),
        (lambda m: QConfigMapping.from_dict({"module_name": [("a",)]}), "under 'module_name' is a tuple of 2"),
        (lambda m: QConfigMapping.from_dict([("a", A)]), "takes a dictionary, got list"),
    ],
)
def test_mistakes(mistake: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mistake(QConfigMapping())


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_default_mappings(backend: str) -> None:
    mapping = config.get_default_qconfig_mapping(backend)
    general = config.get_default_qconfig(backend)
    types = mapping.object_type_qconfigs
    assert qconfig_equals(mapping.global_qconfig, general)
    assert types["reshape"] is config.default_reuse_input_qconfig
    assert types[nn.PReLU] is config.default_quint8_weight_qconfig
    assert types[nn.LayerNorm].weight is PlaceholderObserver
    for sigmoid in (nn.Sigmoid, torch.sigmoid, "sigmoid_", nn.Softmax, functional.hardsigmoid):
        assert observer_facts(types[sigmoid].activation).scale == 1 / 256
    assert observer_facts(types[torch.tanh].activation).zero_point == 128
    per_channel = observer_facts(types[nn.ConvTranspose2d].weight).ch_axis is not None
    assert per_channel is (backend == "onednn")
    assert config.get_default_qconfig_dict(backend)["object_type"][0][0] == "reshape"
    assert not any((mapping.module_name_qconfigs, mapping.module_name_regex_qconfigs))


def test_default_mappings_are_new_and_can_be_copied() -> None:
    changed = config.get_default_qconfig_mapping().set_object_type(nn.PReLU, None)
    assert config.get_default_qconfig_mapping().object_type_qconfigs[nn.PReLU] is not None
    assert copy.deepcopy(changed).object_type_qconfigs[nn.PReLU] is None


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (nn.Conv2d, "torch.nn.Conv2d"),
        (functional.relu, "torch.nn.functional.relu"),
        (functional.max_pool2d, "torch.nn.functional.max_pool2d"),
        (torch.add, "torch.add"),
        (operator.add, "operator.add"),
        ("view", "'view'"),
        (QConfig, "qfx.config.qconfig.QConfig"),
        (3, "3"),
    ],
)
def test_public_name(target: object, name: str) -> None:
    assert public_name(target) == name


def test_default_qconfig_in_a_mapping_is_kept_as_it_is() -> None:
    assert QConfigMapping().set_global(default_qconfig).global_qconfig is default_qconfig
