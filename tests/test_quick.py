"""Quick attributes behave as torch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qfx.quick import QuickAttributes


class Quick(QuickAttributes, nn.Module):
    pass


def test_plain_values_are_attributes_and_tensors_what_they_were() -> None:
    made = Quick()
    made.scale, made.sizes, made.kind = 0.5, [1, 2], torch.quint8
    made.weight, made.inner = nn.Parameter(torch.ones(1)), nn.ReLU()
    made.register_buffer("low", torch.zeros(1))
    made.low = torch.ones(1)
    assert (made.scale, made.sizes, made.kind) == (0.5, [1, 2], torch.quint8)
    assert list(made.state_dict()) == ["weight", "low"]
    assert [name for name, _ in made.named_children()] == ["inner"]


@pytest.mark.parametrize("name", ["weight", "low", "inner"])
def test_what_is_registered_is_not_hidden_by_a_number(name: str) -> None:
    made = Quick()
    made.weight, made.inner = nn.Parameter(torch.ones(1)), nn.ReLU()
    made.register_buffer("low", torch.zeros(1))
    with pytest.raises(TypeError, match="cannot assign"):
        setattr(made, name, 5)
