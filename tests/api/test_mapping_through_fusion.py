"""What the mapping says of a layer holds whatever is fused into it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

X = torch.randn(4, 3, 8, 8)
DEFAULT = qfx.get_default_qconfig("x86")

# How an entry names the convolution, and nothing else of the model.
ENTRIES: dict[str, Callable[[qfx.QConfigMapping, qfx.QConfig | None], qfx.QConfigMapping]] = {
    "object type": lambda mapping, qconfig: mapping.set_object_type(nn.Conv2d, qconfig),
    "regex": lambda mapping, qconfig: mapping.set_module_name_regex("con.", qconfig),
    "name": lambda mapping, qconfig: mapping.set_module_name("conv", qconfig),
    "order": lambda mapping, qconfig: mapping.set_module_name_object_type_order("", nn.Conv2d, 0, qconfig),
}
FOLLOWED: dict[str, list[tuple[str, nn.Module]]] = {
    "nothing": [],
    "batch norm": [("bn", nn.BatchNorm2d(4))],
    "relu": [("relu", nn.ReLU())],
    "both": [("bn", nn.BatchNorm2d(4)), ("relu", nn.ReLU())],
}


def network(followed: str) -> nn.Module:
    model = nn.Sequential()
    for name, module in [("conv", nn.Conv2d(3, 4, 3)), *FOLLOWED[followed]]:
        model.add_module(name, module)
    return model.eval()


def kernels(model: nn.Module, mapping: qfx.QConfigMapping) -> list[str]:
    prepared = qfx.prepare_fx(model, mapping, (X,), strict=True)
    prepared(X)
    return sorted(qfx.summary(qfx.convert_fx(prepared)).kernels)


@pytest.mark.parametrize("followed", FOLLOWED)
@pytest.mark.parametrize("entry", ENTRIES)
def test_only_this_layer(entry: str, followed: str) -> None:
    (kernel,) = kernels(network(followed), ENTRIES[entry](qfx.QConfigMapping(), DEFAULT))
    assert kernel.startswith("quantized.conv2d")


@pytest.mark.parametrize("followed", FOLLOWED)
@pytest.mark.parametrize("entry", ENTRIES)
def test_not_this_layer(entry: str, followed: str) -> None:
    mapping = ENTRIES[entry](qfx.get_default_qconfig_mapping("x86"), None)
    assert not [name for name in kernels(network(followed), mapping) if "conv" in name]


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(F.conv2d(x, self.conv.weight, self.conv.bias)))


@pytest.mark.parametrize(("qconfig", "count"), [(DEFAULT, 1), (None, 0)])
def test_a_function_is_named_by_itself(qconfig: qfx.QConfig | None, count: int) -> None:
    mapping = qfx.get_default_qconfig_mapping("x86") if qconfig is None else qfx.QConfigMapping()
    found = kernels(Functional().eval(), mapping.set_object_type(F.conv2d, qconfig))
    assert len([name for name in found if "conv2d" in name]) == count
