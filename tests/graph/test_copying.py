"""A copy shares nothing that could change, keeps aliases aliases, and is otherwise the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from qfx import observers
from qfx.graph.copying import copied_module, copied_tensor
from qfx.nn import intrinsic

BUILT: dict[str, nn.Module] = {
    "linear": nn.Linear(3, 4),
    "conv": nn.Conv2d(3, 4, 3, padding="same"),
    "transposed": nn.ConvTranspose1d(3, 4, 3, output_padding=1, stride=2),
    "batch norm": nn.BatchNorm2d(4),
    "embedding": nn.Embedding(5, 3, padding_idx=1),
    "lstm": nn.LSTM(3, 4, 2),
    "sequence": nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.ModuleList([nn.Tanh()]), nn.ModuleDict({"a": nn.ELU()})),
    "upsample": nn.Upsample(scale_factor=(2.0, 3.0)),
    "fused": intrinsic.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()),
    "min-max": observers.MinMaxObserver(),
    "histogram": observers.HistogramObserver(),
    "per channel": observers.PerChannelMinMaxObserver(),
}


def mutable_parts(value: Any) -> set[int]:
    """Ids of every container and tensor reachable from a module's state."""
    found: set[int] = set()
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, nn.Module):
            found.add(id(each))
            stack.extend(each.__dict__.values())
        elif isinstance(each, dict | list | set):
            found.add(id(each))
            stack.extend(each.values() if isinstance(each, dict) else each)
        elif isinstance(each, tuple):
            stack.extend(each)
        elif isinstance(each, torch.Tensor):
            found.add(id(each))
    return found


def test_hooks_are_shared_and_their_tables_are_not() -> None:
    """A hook may be a method of the whole model, and nobody expects a copy of that."""
    module, seen = nn.Linear(3, 4), []
    module.register_forward_hook(lambda *_: seen.append("here"))
    made = copied_module(module, {})
    made(torch.randn(2, 3))
    assert seen == ["here"]
    made.register_forward_hook(lambda *_: seen.append("there"))
    module(torch.randn(2, 3))
    assert seen == ["here", "here"]


def test_a_tensor_computed_from_others_is_copied_without_its_history() -> None:
    source = torch.randn(3, requires_grad=True)
    made = copied_tensor(source * 2, {})
    assert torch.equal(made, source * 2)
    assert made.is_leaf

    class Whole(nn.Module):  # a class we do not know: copied by copy.deepcopy, which refuses such tensors
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.randn(3))
            self.inner = nn.Linear(3, 3)
            self.inner.computed = self.computed = self.p * 2

    whole = copied_module(Whole(), {})
    assert whole.inner.computed is whole.computed
    assert torch.equal(whole.computed, whole.p * 2)


@pytest.mark.parametrize("name", BUILT)
def test_a_copy_shares_nothing_that_could_change(name: str) -> None:
    module = BUILT[name]
    made = copied_module(module, {})
    assert type(made) is type(module)
    assert mutable_parts(made).isdisjoint(mutable_parts(module))
    assert set(made.__dict__) == set(module.__dict__)
    before, after = module.state_dict(), made.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert made.training == module.training


def test_aliases_stay_aliases() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(3, 3))
    model[3].weight = shared.weight
    made = copied_module(model, {})
    assert made[0] is made[2]
    assert made[3].weight is made[0].weight
    assert made[0].weight is not shared.weight


def test_a_tensor_keeps_format_gradient_flag_and_kind() -> None:
    last = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for tensor in (last, nn.Parameter(last), nn.Parameter(last, requires_grad=False)):
        made = copied_tensor(tensor, {})
        assert type(made) is type(tensor)
        assert made.requires_grad == tensor.requires_grad
        assert made.stride() == tensor.stride()
        assert torch.equal(made, tensor)
        assert made.data_ptr() != tensor.data_ptr()
    memo: dict[int, Any] = {}
    assert copied_tensor(last, memo) is copied_tensor(last, memo)


def test_a_users_own_class_copies_itself() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.history = [{"a": 1}]

        def __deepcopy__(self, memo: dict[int, Any]) -> Mine:
            made = Mine()
            made.history = [*copy.deepcopy(self.history), "copied"]  # type: ignore[list-item]
            return made

    model = nn.Sequential(Mine())
    assert copied_module(model, {})[0].history == [{"a": 1}, "copied"]
