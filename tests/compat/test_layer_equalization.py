"""Cross-layer equalization of modules named in pairs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from qfx.compat.private import layer_equalization as eager
from qfx.errors import ConfigError
from qfx.nn import intrinsic

PAIRS: dict[str, tuple[nn.Module, nn.Module]] = {
    "conv2d": (nn.Conv2d(3, 4, 2), nn.Conv2d(4, 5, 3)),
    "conv1d": (nn.Conv1d(3, 4, 2, bias=False), nn.Conv1d(4, 5, 3)),
    "linear": (nn.Linear(3, 4), nn.Linear(4, 2)),
    "fused": (intrinsic.LinearReLU(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2)),
    "both": (intrinsic.ConvReLU2d(nn.Conv2d(3, 4, 2), nn.ReLU()), nn.Linear(4, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_ranges_are_alike_on_both_sides(name: str) -> None:
    first, second = copy.deepcopy(PAIRS[name])
    eager.cross_layer_equalization(first, second)
    ranges = (eager.channel_range(eager.get_module_weight(m).detach(), axis) for m, axis in ((first, 0), (second, 1)))
    torch.testing.assert_close(*ranges)
    assert eager.has_bias(first) is eager.has_bias(PAIRS[name][0])


@pytest.mark.parametrize("inplace", [True, False])
def test_a_model_computes_what_it_did(inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[2] *= 30
    x = torch.randn(8, 6)
    expected, before = model(x), copy.deepcopy(model)
    found = eager.equalize(model, [["0", model[2], "4"]], 1e-6, inplace)
    torch.testing.assert_close(found(x), expected)
    assert (found is model) is inplace
    assert torch.equal(model[0].weight, before[0].weight) is not inplace
    first, last = (eager.channel_range(found[i].weight.detach(), axis) for i, axis in ((0, 0), (2, 1)))
    torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-6)


def test_a_channel_of_one_value_stays() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight[1] = 0.0
    eager.cross_layer_equalization(first, second)
    assert torch.isfinite(second.weight).all()
    assert first.weight[1].tolist() == [0.0, 0.0]


def test_when_it_has_converged() -> None:
    layer = nn.Linear(2, 2)
    near, far = copy.deepcopy(layer), copy.deepcopy(layer)
    with torch.no_grad():
        near.weight += 1e-6
        far.weight += 1.0
    assert eager.converged({}, {})
    assert eager.converged({"a": layer}, {"a": near})
    assert not eager.converged({"a": layer}, {"a": far})
    assert not eager.converged({"a": layer}, {"a": None})


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: eager.converged({"a": nn.Linear(1, 1)}, {"b": None}), r"same set of names.*\['a', 'b'\]"),
        (lambda: eager.cross_layer_equalization(nn.ReLU(), nn.Linear(2, 2)), "module type not supported: ReLU"),
        (
            lambda: eager.cross_layer_equalization(nn.Linear(2, 3), nn.Linear(2, 2)),
            r"Number of output .*: 3 and 2",
        ),
        (lambda: eager.expand_groups_in_paired_modules_list([["a"]]), "at least two modules"),
        (lambda: eager.get_name_by_module(nn.Linear(1, 1), nn.ReLU()), "module is not in the model: ReLU"),
    ],
)
def test_what_cannot_be_equalized_is_refused(call: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        call()


def test_what_is_no_layer_is_a_type_error_too() -> None:
    with pytest.raises(TypeError, match=r"item must be a nn\.Module or a string; got 1"):
        eager.equalize(nn.Sequential(nn.Linear(2, 2)), [[1, 2]])
    with pytest.raises(TypeError, match="Number of output channels"):
        eager.cross_layer_equalization(nn.Linear(2, 3), nn.Linear(2, 2))
