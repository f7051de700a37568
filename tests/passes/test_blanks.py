from __future__ import annotations

import torch

from qfx.observers import MinMaxObserver
from qfx.passes.blanks import Blanks


class Numbered(MinMaxObserver):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Numbered.made += 1


def test_a_copy_of_an_unused_observer_shares_nothing_with_it() -> None:
    blanks = Blanks()
    factory = MinMaxObserver.with_args(dtype=torch.qint8)
    first, second, third = (blanks.make(factory) for _ in range(3))
    first(torch.tensor([-5.0, 5.0]))
    second(torch.tensor([-1.0, 1.0]))
    assert [float(o.max_val) for o in (first, second)] == [5.0, 1.0]
    assert third.problems() == ["never ran"]
    assert third.dtype is torch.qint8


def test_what_a_users_class_does_when_made_is_done_each_time() -> None:
    blanks, before = Blanks(), Numbered.made
    for factory in (Numbered, Numbered.with_args()):
        for _ in range(3):
            blanks.make(factory)
    assert Numbered.made - before == 6


def test_arguments_worked_out_by_a_call_are_worked_out_each_time() -> None:
    blanks, numbers = Blanks(), iter(range(100, 110))
    factory = MinMaxObserver.with_callable_args(quant_max=lambda: next(numbers)).with_args(quant_min=0)
    assert [blanks.make(factory).quant_max for _ in range(3)] == [100, 101, 102]
