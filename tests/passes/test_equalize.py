"""Cross-layer equalization changes weights, not what a model computes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

WEIGHTS_PER_TENSOR = qfx.QConfig(qfx.default_observer, qfx.default_weight_observer)
MAPPING = qfx.QConfigMapping().set_global(WEIGHTS_PER_TENSOR)
ALL = qfx.QConfigMapping().set_global(WEIGHTS_PER_TENSOR)


def _skewed(model: nn.Module) -> nn.Module:
    """Give the channels between layers ranges far apart, in a model that computes the same."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, after in pairwise(layers):
        factor = torch.logspace(-2, 2, layer.weight.shape[0])[torch.randperm(layer.weight.shape[0])]
        layer.weight.data.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.data.mul_(factor)
        axis = 0 if getattr(after, "groups", 1) > 1 else 1
        after.weight.data.div_(factor.reshape([-1 if each == axis else 1 for each in range(after.weight.dim())]))
    return model.eval()


def _pair() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )


@pytest.mark.parametrize(("make", "shape", "pairs"), [(_pair, (32, 6), 1), (_depthwise, (4, 3, 8, 8), 2)])
def test_a_model_computes_the_same_and_is_quantized_better(make: Any, shape: tuple[int, ...], pairs: int) -> None:
    model, x = _skewed(make()), torch.randn(*shape)
    expected = model(x)
    errors = []
    for equalization in (None, ALL):
        prepared = qfx.prepare_fx(model, MAPPING, (x,), _equalization_config=equalization)
        assert torch.allclose(prepared(x), expected, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max()))
        assert len(prepared.plan["equalized"]) == (pairs if equalization else 0)
        errors.append((qfx.convert_fx(prepared)(x) - expected).pow(2).mean())
    assert errors[1] < errors[0] / 2
    assert torch.equal(model(x), expected)  # the user's model is not changed


def test_both_ranges_are_alike_afterwards() -> None:
    x = torch.randn(8, 6)
    prepared = qfx.prepare_fx(_skewed(_pair()), MAPPING, (x,), _equalization_config=ALL)
    first, second = prepared.get_submodule("0")[0], prepared.get_submodule("2")
    torch.testing.assert_close(first.weight.abs().amax(1), second.weight.abs().amax(0), rtol=1e-2, atol=0.0)


def test_only_layers_the_mapping_names_are_equalized() -> None:
    x, only = torch.randn(8, 6), qfx.QConfigMapping().set_module_name("0", WEIGHTS_PER_TENSOR)
    prepared = qfx.prepare_fx(_skewed(_pair()), MAPPING, (x,), _equalization_config=only)
    assert prepared.plan["equalized"] == []


def test_a_value_read_twice_and_a_sigmoid_are_left_alone() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(self.a(x))
            return self.c(torch.sigmoid(self.b(y) + y))

    x = torch.randn(8, 4)
    prepared = qfx.prepare_fx(Residual().eval(), MAPPING, (x,), _equalization_config=ALL)
    assert prepared.plan["equalized"] == []


def test_a_channel_without_weights_keeps_its_factor() -> None:
    model, x = _pair().eval(), torch.randn(8, 6)
    model[0].weight.data[3] = 0
    prepared = qfx.prepare_fx(model, MAPPING, (x,), _equalization_config=ALL)
    assert torch.isfinite(prepared(x)).all()


def test_tied_weights_are_left_alone() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).eval(), torch.randn(8, 6)
    model[2].weight = model[0].weight
    prepared = qfx.prepare_fx(model, MAPPING, (x,), _equalization_config=ALL)
    assert prepared.plan["equalized"] == []
