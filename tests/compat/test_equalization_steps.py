"""The steps of input-weight equalization, one by one and together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx.api.equalized import equalized
from qfx.compat.private import equalization_steps as steps
from qfx.errors import ConfigError
from qfx.observers import MinMaxObserver
from qfx.observers.equalization import (
    InputEqualizationObserver,
    WeightEqualizationObserver,
    default_equalization_qconfig,
)

QCONFIG = qfx.QConfig(MinMaxObserver, MinMaxObserver.with_args(dtype=torch.qint8))


class Net(nn.Module):
    """Two modules in a row, with a relu behind the second; then a function, and another behind an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(5, 4), nn.Linear(4, 6)
        self.w, self.b = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(3))
        self.v = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(F.relu(self.l2(self.l1(x))), self.w, self.b)
        return F.linear(y + y, self.v)


def prepared() -> tuple[Any, Tensor]:
    x = torch.randn(20, 5) * torch.tensor([0.1, 1.0, 3.0, 10.0, 0.5])
    mapping = qfx.QConfigMapping().set_global(QCONFIG)
    config = qfx.QConfigMapping().set_global(default_equalization_qconfig)
    made = qfx.prepare_fx(Net().eval(), mapping, (x,), _equalization_config=config)
    made(x)
    return made, x


def nodes(gm: Any, kind: type) -> list[Any]:
    modules = dict(gm.named_modules())
    return [n for n in gm.graph.nodes if n.op == "call_module" and isinstance(modules[n.target], kind)]


def products(gm: Any) -> int:
    return sum(node.target is torch.mul for node in gm.graph.nodes)


def test_all_steps_are_what_converting_does() -> None:
    gm, x = prepared()
    whole, taken = equalized(gm), copy.deepcopy(gm)
    modules = dict(taken.named_modules())
    found = steps.update_obs_for_equalization(taken, modules)
    assert sorted(found) == ["l1", "l2", "linear", "linear_1"]
    steps.convert_eq_obs(taken, modules, found)
    assert not nodes(taken, InputEqualizationObserver)
    assert not nodes(taken, WeightEqualizationObserver)
    for name in ("activation_post_process_0", "activation_post_process_1", "activation_post_process_2"):  # of inputs
        mine, other = taken.get_submodule(name), whole.get_submodule(name)
        torch.testing.assert_close((mine.min_val, mine.max_val), (other.min_val, other.max_val))
    assert products(taken) == products(whole) == 2
    torch.testing.assert_close(taken(x), whole(x))
    assert torch.isfinite(qfx.convert_fx(taken)(x)).all()


def test_layers_and_their_observers() -> None:
    gm, _ = prepared()
    modules = dict(gm.named_modules())
    first, second, third, _ = nodes(gm, InputEqualizationObserver)
    op, of_weight = steps.get_op_node_and_weight_eq_obs(first, gm, modules)
    assert (op.name, type(of_weight)) == ("l1", WeightEqualizationObserver)
    assert steps.maybe_get_next_input_eq_obs(op, modules) is modules[second.target]
    assert steps.maybe_get_weight_eq_obs_node(op, modules) is None
    op, of_weight = steps.get_op_node_and_weight_eq_obs(third, gm, modules)
    (watched,) = (n for n in nodes(gm, WeightEqualizationObserver) if modules[n.target] is of_weight)
    assert steps.maybe_get_weight_eq_obs_node(op, modules) is watched
    assert steps.maybe_get_next_input_eq_obs(op, modules) is None  # an addition comes first
    with pytest.raises(ConfigError, match="calls no layer that can be equalized"):
        steps.maybe_get_next_input_eq_obs(first, modules)


def test_the_factors_of_the_next_layer() -> None:
    gm, _ = prepared()
    modules = dict(gm.named_modules())
    _, second, *_ = nodes(gm, InputEqualizationObserver)
    l1 = next(n for n in gm.graph.nodes if n.name == "l1")
    assert steps.maybe_get_next_equalization_scale(l1, modules) is None  # not worked out yet
    modules[second.target].set_equalization_scale(torch.arange(1.0, 5.0))
    found = steps.maybe_get_next_equalization_scale(l1, modules)
    assert found.flatten().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_module_is_scaled_along_both_axes() -> None:
    gm, _ = prepared()
    modules = dict(gm.named_modules())
    l1 = next(n for n in gm.graph.nodes if n.name == "l1")
    weight, bias = gm.l1.weight.detach().clone(), gm.l1.bias.detach().clone()
    factors, behind = torch.rand(5) + 1, torch.rand(4) + 1
    steps.scale_weight_node(l1, modules, factors, behind)
    torch.testing.assert_close(gm.l1.weight.detach(), weight / factors * behind[:, None])
    torch.testing.assert_close(gm.l1.bias.detach(), bias * behind)


def test_a_weight_in_the_graph_is_scaled_and_its_observer_cleared() -> None:
    gm, _ = prepared()
    modules = dict(gm.named_modules())
    op = next(n for n in gm.graph.nodes if n.name == "linear")
    weight = gm.w.detach().clone()
    steps.clear_weight_quant_obs_node(op, modules)
    observer = next(m for n, m in modules.items() if n == "activation_post_process_3")
    assert observer.min_val > observer.max_val
    steps.scale_weight_functional(op, gm, modules, torch.full([6], 2.0), None)
    torch.testing.assert_close(gm.w.detach(), weight / 2)


def test_a_range_is_scaled_with_its_columns() -> None:
    gm, x = prepared()
    modules = dict(gm.named_modules())
    first = nodes(gm, InputEqualizationObserver)[0]
    modules[first.target].set_equalization_scale(torch.full([5], 0.5))
    steps.scale_input_observer(first, modules)
    assert gm.activation_post_process_0.max_val == x.max() / 2


def test_a_node_is_taken_away() -> None:
    gm, x = prepared()
    expected = gm(x)
    first = nodes(gm, InputEqualizationObserver)[0]
    steps.remove_node(gm, first, first.args[0])
    gm.recompile()
    assert len(nodes(gm, InputEqualizationObserver)) == 3
    assert torch.equal(gm(x), expected)
