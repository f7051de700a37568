"""Moves of data are quantized where they lie in an integer region, and nowhere else."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

X = torch.randn(4, 3, 6)


class Net(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.fc = function, nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


IDLE: dict[str, Callable[..., Any]] = {
    "a slice of the input": lambda m, x: x[0],
    "moves among themselves": lambda m, x: F.pad(x[:, 1:], (1, 1)).chunk(2, -1)[0],
    "between float ops": lambda m, x: torch.hardshrink(torch.flip(torch.hardshrink(x), (0,))),
    "a branch of the float that a layer reads": lambda m, x: (m.fc(x), x[0]),
    "beside a layer": lambda m, x: (m.fc(x), torch.roll(torch.hardshrink(x), 1)),
}
BUSY: dict[str, Callable[..., Any]] = {
    "before a layer": lambda m, x: m.fc(torch.flip(x, (0,))),
    "after a layer": lambda m, x: m.fc(x)[0],
    "a chain that ends at a layer": lambda m, x: m.fc(F.pad(x[:, 1:], (0, 0, 1, 0)).roll(1)),
}


def _moves(function: Callable[..., Any]) -> tuple[Any, list[Any]]:
    prepared = qfx.prepare_fx(Net(function).eval(), qfx.get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    quantized = prepared.plan["instances"]
    return prepared, [each["op"] for each in quantized.values() if each["op"] not in ("linear", "hardshrink")]


@pytest.mark.parametrize("name", IDLE)
def test_between_floats_they_stay_float(name: str) -> None:
    prepared, moves = _moves(IDLE[name])
    assert moves == []
    idle = [reason for reason in prepared.plan["float"].values() if "only moves values" in reason]
    assert idle
    out, expected = qfx.convert_fx(prepared)(X), prepared(X)
    if isinstance(out, tuple):
        out, expected = out[1], expected[1]
    assert torch.equal(out, expected)  # to the bit


@pytest.mark.parametrize("name", BUSY)
def test_next_to_integers_they_are_integer(name: str) -> None:
    prepared, moves = _moves(BUSY[name])
    assert moves
    assert not [reason for reason in prepared.plan["float"].values() if "only moves values" in reason]


def test_what_enters_or_leaves_quantized_is_moved_so() -> None:
    for custom in (
        qfx.PrepareCustomConfig().set_input_quantized_indexes([0]),
        qfx.PrepareCustomConfig().set_output_quantized_indexes([0]),
    ):
        model = Net(lambda m, x: x[0]).eval()
        prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (X,), custom)
        assert [each["op"] for each in prepared.plan["instances"].values()] == ["getitem"]


def test_a_backend_that_names_them_is_taken_at_its_word() -> None:
    config = qfx.BackendPatternConfig(operator.getitem)
    config.set_observation_type(qfx.ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT)
    config.add_dtype_config(qfx.DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8))
    backend = qfx.BackendConfig("own").set_backend_pattern_config(config)
    model = Net(lambda m, x: x[0]).eval()
    prepared = qfx.prepare_fx(model, qfx.QConfigMapping().set_global(qfx.default_qconfig), (X,), backend_config=backend)
    assert [each["op"] for each in prepared.plan["instances"].values()] == ["getitem"]
