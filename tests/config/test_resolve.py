from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from qfx.config import (
    Entry,
    QConfig,
    QConfigMapping,
    Resolved,
    entries,
    get_default_qconfig_mapping,
    observer_facts,
    resolve,
    unused_entries,
)
from qfx.errors import ConfigError
from qfx.observers import MinMaxObserver


def q(number: int) -> QConfig:
    return QConfig(MinMaxObserver.with_args(quant_min=0, quant_max=number), None)


def conv(mapping: QConfigMapping, path: str, index: int = 0) -> Resolved:
    return resolve(mapping, object_types=[nn.Conv2d], module_path=path, index=index)


def layered() -> QConfigMapping:
    return (
        QConfigMapping()
        .set_module_name_object_type_order("body.block", nn.Conv2d, 1, q(5))
        .set_module_name("body", q(4))
        .set_module_name_regex("bo", q(3))
        .set_object_type(nn.Conv2d, q(2))
        .set_global(q(1))
    )


@pytest.mark.parametrize(
    ("path", "index", "why"),
    [
        ("body.block.conv", 1, "module_name_object_type_order ('body.block', torch.nn.Conv2d, 1)"),
        ("body.block.conv", 0, "module_name 'body'"),
        ("body", 0, "module_name 'body'"),
        ("bottom.conv", 0, "module_name_regex 'bo'"),
        ("head.body", 0, "object_type torch.nn.Conv2d"),
    ],
)
def test_the_most_specific_entry_wins(path: str, index: int, why: str) -> None:
    assert conv(layered(), path, index).why == why


def test_global_is_last() -> None:
    found = resolve(layered(), object_types=[nn.Linear], module_path="head", index=0)
    assert found.why == "global"
    assert observer_facts(found.qconfig.activation).quant_max == 1
    assert conv(QConfigMapping(), "a").qconfig is None
    assert conv(QConfigMapping(), "a").why == "global"


def test_the_innermost_module_name_wins() -> None:
    mapping = QConfigMapping().set_module_name("a", None).set_module_name("a.b", q(1))
    assert conv(mapping, "a.b.c.d").why == "module_name 'a.b'"
    assert conv(mapping, "a.bc").why == "module_name 'a'"
    assert conv(mapping, "ab").why == "global"


def test_none_is_a_decision() -> None:
    mapping = QConfigMapping().set_global(q(1)).set_object_type(nn.Conv2d, q(2)).set_module_name("a", None)
    assert conv(mapping, "a").qconfig is None
    assert conv(mapping, "a").why == "module_name 'a'"


def test_the_first_matching_regex_wins_from_the_beginning_of_the_path() -> None:
    mapping = QConfigMapping().set_module_name_regex("b", q(1)).set_module_name_regex(".*c", q(2))
    assert conv(mapping, "b.c").why == "module_name_regex 'b'"
    assert conv(mapping, "a.c").why == "module_name_regex '.*c'"
    assert conv(mapping, "a.b").why == "global"


def test_a_broken_regex_is_named() -> None:
    with pytest.raises(ConfigError, match=r"module_name_regex '\(' is no regular expression"):
        conv(QConfigMapping().set_module_name_regex("(", None), "a")


def test_functions_are_counted_in_the_module_that_calls_them() -> None:
    mapping = QConfigMapping().set_module_name_object_type_order("body", functional.relu, 0, q(1))

    def relu(path: str, index: int) -> str:
        return resolve(mapping, object_types=[functional.relu], module_path=path, index=index).why

    assert relu("body", 0).startswith("module_name_object_type_order ('body', torch.nn.functional.relu")
    assert relu("body", 1) == relu("body.inner", 0) == "global"


def test_the_scope_can_be_given() -> None:
    mapping = QConfigMapping().set_module_name_object_type_order("loop", nn.Conv2d, 0, q(1))
    found = resolve(mapping, object_types=[nn.Conv2d], module_path="shared.conv", index=0, scope="loop")
    assert found.why.startswith("module_name_object_type_order")


def test_names_are_tried_in_order() -> None:
    mapping = QConfigMapping().set_object_type(nn.Conv2d, q(1)).set_object_type("relu", None)
    found = resolve(mapping, object_types=["relu", nn.Conv2d], module_path="", index=0)
    assert found.why == "object_type 'relu'"


def test_the_class_of_the_caller_speaks_for_its_calls() -> None:
    class Block(nn.Module):
        pass

    mapping = QConfigMapping().set_object_type(torch.add, q(1)).set_object_type(Block, q(2))
    inside = resolve(mapping, object_types=[torch.add], module_path="block", index=0, scope_type=Block)
    assert inside.why.endswith("Block")
    outside = resolve(mapping, object_types=[torch.add], module_path="", index=0, scope_type=nn.Sequential)
    assert outside.why == "object_type torch.add"


def test_unused_entries() -> None:
    mapping = layered().set_module_name("bodyy", None)
    used = [conv(mapping, "body.block.conv", 0).entry, conv(mapping, "bottom").entry]
    assert [str(entry) for entry in unused_entries(mapping, used)] == [
        "object_type torch.nn.Conv2d",
        "module_name 'bodyy'",
        "module_name_object_type_order ('body.block', torch.nn.Conv2d, 1)",
    ]
    assert unused_entries(mapping, entries(mapping)) == []


def test_object_types_of_the_defaults_may_go_unused() -> None:
    mapping = get_default_qconfig_mapping().set_object_type("sigmod", None)
    assert unused_entries(mapping, []) == [Entry("object_type", "sigmod")]


paths = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map(".".join)
types = st.sampled_from([nn.Conv2d, nn.Linear])


@settings(deadline=None, max_examples=100)
@given(
    names=st.lists(paths, max_size=4, unique=True),
    regexes=st.lists(st.sampled_from(["a", "ab", ".*b", "b\\.a"]), max_size=3, unique=True),
    object_types=st.lists(types, max_size=2, unique=True),
    orders=st.lists(st.tuples(paths, types, st.integers(0, 2)), max_size=4, unique=True),
    path=paths,
    kind=types,
    index=st.integers(0, 2),
)
def test_resolve_agrees_with_the_plain_rule(
    names: list[str],
    regexes: list[str],
    object_types: list[type],
    orders: list[tuple[str, type, int]],
    path: str,
    kind: type,
    index: int,
) -> None:
    """The rule written the slow way: collect every entry that applies, take the best by (kind, depth, order)."""
    mapping = QConfigMapping().set_global(q(1))
    for name in names:
        mapping.set_module_name(name, q(2))
    for regex in regexes:
        mapping.set_module_name_regex(regex, q(3))
    for object_type in object_types:
        mapping.set_object_type(object_type, q(4))
    for order in orders:
        mapping.set_module_name_object_type_order(*order, q(5))

    pieces = path.split(".")
    prefixes = [".".join(pieces[:n]) for n in range(len(pieces) + 1)]
    candidates = [((0, 0), Entry("global"))]
    candidates += [((1, 0), Entry("object_type", t)) for t in object_types if t is kind]
    candidates += [((2, -n), Entry("module_name_regex", r)) for n, r in enumerate(regexes) if re.compile(r).match(path)]
    candidates += [((3, len(n)), Entry("module_name", n)) for n in names if n in prefixes]
    wanted = (prefixes[-2], kind, index)
    candidates += [((4, 0), Entry("module_name_object_type_order", o)) for o in orders if o == wanted]
    best = max(candidates, key=lambda scored: scored[0])[1]
    assert resolve(mapping, object_types=[kind], module_path=path, index=index).entry == best
