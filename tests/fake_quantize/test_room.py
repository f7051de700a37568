"""Memory of a step is used again by the next one, and never while somebody has it."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.fake_quantize import room
from qfx.fake_quantize.room import room_for


class Owner:
    """Whoever asks for memory."""


LIKE = torch.rand(3, 4)


def test_what_nobody_has_is_given_again() -> None:
    owner = Owner()
    first = room_for(owner, LIKE)
    at = first.data_ptr()
    del first
    again = room_for(owner, LIKE)
    assert again.data_ptr() == at
    assert again.shape == LIKE.shape
    assert not again.requires_grad
    assert room_for(Owner(), LIKE).data_ptr() != at


@pytest.mark.parametrize(
    "hold",
    [
        lambda made: made,
        lambda made: made[1:],
        lambda made: made.numpy(),
        lambda made: (nn.Parameter(LIKE.clone()) * made).sum(),
    ],
    ids=["itself", "a view", "an array", "a graph before its backward pass"],
)
def test_what_somebody_has_is_not(hold: Callable[[Tensor], Any]) -> None:
    owner = Owner()
    made = room_for(owner, LIKE)
    at, held = made.data_ptr(), hold(made)
    del made
    assert room_for(owner, LIKE).data_ptr() != at
    assert held is not None


def test_a_graph_lets_go_of_it_in_its_backward_pass() -> None:
    owner = Owner()
    made = room_for(owner, LIKE)
    at, loss = made.data_ptr(), (nn.Parameter(LIKE.clone()) * made).sum()
    del made
    loss.backward()
    assert room_for(owner, LIKE).data_ptr() == at


@pytest.mark.parametrize("like", [LIKE[:2], LIKE.double(), torch.rand(4, 3).t()], ids=["shape", "dtype", "layout"])
def test_another_form_gets_memory_of_its_own(like: Tensor) -> None:
    owner = Owner()
    at = room_for(owner, LIKE).data_ptr()
    made = room_for(owner, like)
    assert made.data_ptr() != at
    assert (made.shape, made.dtype, made.stride()) == (like.shape, like.dtype, like.stride())


def test_nothing_is_kept_without_gradients_or_without_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = room._kept
    owner = Owner()
    room_for(owner, LIKE)
    assert owner in kept
    with torch.no_grad():
        room_for(owner, LIKE)
    assert owner not in kept
    room_for(owner, LIKE)
    before = len(kept)
    del owner
    gc.collect()
    assert len(kept) == before - 1
    monkeypatch.setattr(room, "_readers", None)  # a torch that cannot tell who has it
    room_for(other := Owner(), LIKE)
    assert other not in kept


def trained() -> Any:
    torch.manual_seed(3)
    conv, bn = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
    model = nn.Sequential(conv, bn).train()
    x = torch.randn(2, 4, 5, 5)
    return qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping("x86"), (x,)), x


def test_two_forward_passes_before_a_backward_pass_keep_their_own_weights() -> None:
    apart, x = trained()
    together = copy.deepcopy(apart)
    batches = [x, x.flip(0) * 3, x * 0.5]
    for batch in batches:
        apart(batch).square().sum().backward()
    sum(together(batch).square().sum() for batch in batches).backward()
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_steps_use_one_memory_and_copies_carry_none() -> None:
    model, x = trained()
    fake: Any = next(m.weight_fake_quant for m in model.modules() if hasattr(m, "weight_fake_quant"))
    places = set()
    for _ in range(3):
        model(x).sum().backward()
        places.add(room._kept[fake].data_ptr())
    assert len(places) == 1
    for twin in (copy.deepcopy(fake), pickle.loads(pickle.dumps(fake))):
        assert twin not in room._kept
        assert twin.state_dict().keys() == fake.state_dict().keys()
