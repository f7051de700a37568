"""Dotted attributes of a module tree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qfx.graph.attributes import get_attribute, parent_of, set_attribute


def test_a_value_is_found_where_it_was_put() -> None:
    root = nn.Module()
    set_attribute(root, "a.b.weight", nn.Parameter(torch.ones(2)))
    set_attribute(root, "a.scale", torch.tensor(0.5))
    set_attribute(root, "note", "plain")
    assert get_attribute(root, "a.b.weight") is root.get_parameter("a.b.weight")
    assert [name for name, _ in root.named_buffers()] == ["a.scale"]
    assert get_attribute(root, "note") == "plain"
    with pytest.raises(AttributeError, match="missing"):
        get_attribute(root, "a.missing")


def test_a_tensor_takes_the_place_of_a_parameter_as_a_buffer() -> None:
    root = nn.Linear(2, 2)
    set_attribute(root, "weight", torch.zeros(2, 2))
    assert [name for name, _ in root.named_parameters()] == ["bias"]
    assert [name for name, _ in root.named_buffers()] == ["weight"]


def test_the_owner_and_the_name_of_a_path() -> None:
    root = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert parent_of(root, "0.0.weight") == (root[0][0], "weight")
    assert parent_of(root, "bias") == (root, "bias")
