"""Which line of a mapping decides, and which never did."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import nn

from qfx.config import (
    QConfigMapping,
    default_per_channel_qconfig,
    default_qconfig,
    get_default_qconfig_mapping,
    resolve,
    unused_entries,
)

A, B = default_qconfig, default_per_channel_qconfig


def decided(mapping: QConfigMapping, path: str = "layer1.0.conv", kind: object = nn.Conv2d, index: int = 0) -> object:
    return resolve(mapping, object_types=[kind], module_path=path, index=index)


def test_global_is_the_last_resort() -> None:
    assert decided(QConfigMapping().set_global(A)).qconfig is A
    assert decided(QConfigMapping()).qconfig is None


LEVELS = [
    ("set_global", ()),
    ("set_object_type", (nn.Conv2d,)),
    ("set_module_name_regex", (r"layer1\..*",)),
    ("set_module_name", ("layer1",)),
]


@pytest.mark.parametrize("level", range(1, len(LEVELS)))
def test_each_level_beats_those_before(level: int) -> None:
    mapping = QConfigMapping()
    for method, arguments in LEVELS[:level]:
        getattr(mapping, method)(*arguments, A)
    method, arguments = LEVELS[level]
    getattr(mapping, method)(*arguments, B)
    assert decided(mapping).qconfig is B


def test_the_nearest_parent_decides() -> None:
    mapping = QConfigMapping().set_module_name("layer1", A).set_module_name("layer1.0", B)
    assert decided(mapping).qconfig is B
    assert decided(mapping, "layer1.1.conv").qconfig is A


def test_name_type_and_order_is_the_most_specific() -> None:
    mapping = QConfigMapping().set_global(A).set_module_name("layer1", A)
    mapping.set_module_name_object_type_order("layer1", F.linear, 1, B)
    assert decided(mapping, "layer1", F.linear, 0).qconfig is A
    assert decided(mapping, "layer1", F.linear, 1).qconfig is B


def test_none_switches_off() -> None:
    mapping = QConfigMapping().set_global(A).set_module_name("layer1.0.conv", None)
    assert decided(mapping).qconfig is None
    assert "layer1.0.conv" in decided(mapping).why


def test_entries_nobody_used_are_listed() -> None:
    mapping = QConfigMapping().set_global(A).set_module_name("layr1", B).set_object_type(nn.Linear, B)
    found = decided(mapping)
    listed = [str(entry) for entry in unused_entries(mapping, {found.entry})]
    assert any("layr1" in line for line in listed)
    assert any("Linear" in line for line in listed)


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_defaults_exist_for_each_engine(backend: str) -> None:
    mapping = get_default_qconfig_mapping(backend)
    assert decided(mapping).qconfig.activation().quant_max == (127 if backend in ("x86", "fbgemm") else 255)


@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
def test_dict_round_trip(backend: str) -> None:
    mapping = get_default_qconfig_mapping(backend)
    assert QConfigMapping.from_dict(mapping.to_dict()).to_dict() == mapping.to_dict()
