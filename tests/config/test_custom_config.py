from __future__ import annotations

import pytest
from torch import nn

from qfx.config import (
    BackendConfig,
    ConvertCustomConfig,
    FuseCustomConfig,
    PrepareCustomConfig,
    QConfigMapping,
    QuantType,
    StandaloneModuleConfigEntry,
    default_qconfig,
)
from qfx.errors import ConfigError


class Float(nn.Module):
    pass


class Observed(nn.Module):
    pass


class Quantized(nn.Module):
    pass


def full() -> PrepareCustomConfig:
    mapping = QConfigMapping().set_global(default_qconfig)
    inner = PrepareCustomConfig().set_preserved_attributes(["inner"])
    return (
        PrepareCustomConfig()
        .set_standalone_module_name("a", None, (1,), None, None)
        .set_standalone_module_class(Float, mapping, (2,), inner, BackendConfig("b"))
        .set_float_to_observed_mapping(Float, Observed)
        .set_non_traceable_module_names(["x"])
        .set_non_traceable_module_classes([Observed])
        .set_input_quantized_indexes([0])
        .set_output_quantized_indexes([1])
        .set_preserved_attributes(["z"])
    )


def test_dict_form() -> None:
    said = full().to_dict()
    ((kind, mapping, inputs, inner, backend),) = said.pop("standalone_module_class")
    assert said == {
        "standalone_module_name": [("a", None, (1,), None, None)],
        "float_to_observed_custom_module_class": {"static": {Float: Observed}},
        "non_traceable_module_name": ["x"],
        "non_traceable_module_class": [Observed],
        "input_quantized_idxs": [0],
        "output_quantized_idxs": [1],
        "preserved_attributes": ["z"],
    }
    assert (kind, inputs, inner, backend.name) == (Float, (2,), {"preserved_attributes": ["inner"]}, "b")
    assert mapping[""] is default_qconfig


def test_round_trips() -> None:
    said = full().to_dict()
    again = PrepareCustomConfig.from_dict(said)
    assert again.to_dict() == said
    assert again.standalone_module_names == full().standalone_module_names
    assert again.standalone_module_classes[Float].qconfig_mapping.global_qconfig is default_qconfig
    assert again.standalone_module_classes[Float].prepare_custom_config.preserved_attributes == ["inner"]
    assert again.float_to_observed_mapping == {QuantType.STATIC: {Float: Observed}}
    assert PrepareCustomConfig.from_dict({}).to_dict() == {}


def test_parts_may_be_objects_or_dictionaries() -> None:
    mapping = QConfigMapping()
    as_object = PrepareCustomConfig.from_dict({"standalone_module_name": [("a", mapping, (), None, {"name": "n"})]})
    entry = as_object.standalone_module_names["a"]
    assert entry.qconfig_mapping is mapping
    assert entry.backend_config.name == "n"
    assert entry == StandaloneModuleConfigEntry(mapping, (), None, entry.backend_config)


def test_repr_says_what_was_set() -> None:
    assert repr(PrepareCustomConfig()) == "PrepareCustomConfig({})"
    assert (
        repr(FuseCustomConfig().set_preserved_attributes(["f"])) == "FuseCustomConfig({'preserved_attributes': ['f']})"
    )


def test_lists_are_copied() -> None:
    names = ["a"]
    custom = PrepareCustomConfig().set_preserved_attributes(names)
    names.append("b")
    assert custom.preserved_attributes == ["a"]


def test_convert() -> None:
    custom = (
        ConvertCustomConfig()
        .set_observed_to_quantized_mapping(Observed, Quantized)
        .set_observed_to_quantized_mapping(Float, Quantized, QuantType.WEIGHT_ONLY)
        .set_preserved_attributes(["q"])
    )
    said = custom.to_dict()
    assert said == {
        "observed_to_quantized_custom_module_class": {
            "static": {Observed: Quantized},
            "weight_only": {Float: Quantized},
        },
        "preserved_attributes": ["q"],
    }
    assert ConvertCustomConfig.from_dict(said).to_dict() == said
    assert ConvertCustomConfig().to_dict() == {}


def test_fuse() -> None:
    assert FuseCustomConfig().to_dict() == {}
    assert FuseCustomConfig.from_dict({"preserved_attributes": ["a"]}).to_dict() == {"preserved_attributes": ["a"]}


@pytest.mark.parametrize("kind", [PrepareCustomConfig, ConvertCustomConfig, FuseCustomConfig])
def test_unknown_keys_warn(kind: type) -> None:
    with pytest.warns(UserWarning, match=f"{kind.__name__}.from_dict ignores 'preserve'"):
        kind.from_dict({"preserve": []})


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: PrepareCustomConfig().set_float_to_observed_mapping(Float, Observed, QuantType.DYNAMIC),
            "static quantization only.*use QuantType.STATIC",
        ),
        (lambda: PrepareCustomConfig().set_preserved_attributes("abc"), r"takes a list, got 'abc'; write \['abc'\]"),
        (lambda: PrepareCustomConfig().set_input_quantized_indexes(0), r"takes a list, got 0; write \[0\]"),
        (lambda: PrepareCustomConfig.from_dict({"standalone_module_name": [3]}), "is .module, qconfig mapping.*got 3"),
        (
            lambda: PrepareCustomConfig.from_dict({"standalone_module_name": [("a", 3, (), None, None)]}),
            "expected a QConfigMapping or its dictionary",
        ),
        (
            lambda: PrepareCustomConfig.from_dict({"float_to_observed_custom_module_class": {"foo": {}}}),
            "unknown QuantType name 'foo'; use one of 'dynamic', 'static'",
        ),
        (
            lambda: ConvertCustomConfig.from_dict({"observed_to_quantized_custom_module_class": 3}),
            "takes {'static': {class: class}}, got 3",
        ),
    ],
)
def test_mistakes(mistake: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mistake()


def test_quant_types() -> None:
    assert [(kind.name, int(kind)) for kind in QuantType] == [
        ("DYNAMIC", 0),
        ("STATIC", 1),
        ("QAT", 2),
        ("WEIGHT_ONLY", 3),
    ]
    assert all(QuantType.from_key(kind.key) is kind for kind in QuantType)
