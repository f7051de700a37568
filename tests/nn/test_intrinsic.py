"""Fused containers: what they take, in which order, and what they compute before anything is quantized."""

from __future__ import annotations

import inspect
import operator

import pytest
import torch
from torch import nn

from qfx.errors import ConfigError
from qfx.nn import intrinsic

MODULES = {
    "conv": lambda dims: getattr(nn, f"Conv{dims}d")(4, 4, 3),
    "bn": lambda dims: getattr(nn, f"BatchNorm{dims}d")(4),
    "batch_norm": lambda dims: getattr(nn, f"BatchNorm{dims}d")(4),
    "relu": lambda dims: nn.ReLU(),
    "linear": lambda dims: nn.Linear(4, 4),
    "leaky_relu": lambda dims: nn.LeakyReLU(),
    "tanh": lambda dims: nn.Tanh(),
}
PARTS = {
    **{f"ConvReLU{d}d": ("conv", "relu") for d in (1, 2, 3)},
    **{f"ConvBn{d}d": ("conv", "bn") for d in (1, 2, 3)},
    **{f"ConvBnReLU{d}d": ("conv", "bn", "relu") for d in (1, 2, 3)},
    **{f"BNReLU{d}d": ("batch_norm", "relu") for d in (2, 3)},
    "LinearReLU": ("linear", "relu"),
    "LinearBn1d": ("linear", "bn"),
    "LinearLeakyReLU": ("linear", "leaky_relu"),
    "LinearTanh": ("linear", "tanh"),
}


def parts(name):
    dims = int(name[-2]) if name[-1] == "d" else 1
    return [MODULES[part](dims) for part in PARTS[name]]


@pytest.mark.parametrize("name", PARTS)
def test_containers_take_their_parts_by_position_and_name(name):
    cls, modules = getattr(intrinsic, name), parts(name)
    for made in (cls(*modules), cls(**dict(zip(PARTS[name], modules, strict=True)))):
        assert list(made) == modules
        assert isinstance(made, intrinsic._FusedModule)
    assert tuple(inspect.signature(cls).parameters) == PARTS[name]


@pytest.mark.parametrize("name", PARTS)
def test_containers_refuse_other_classes_and_subclasses(name):
    cls, modules = getattr(intrinsic, name), parts(name)
    subclass = type("Mine", (type(modules[0]),), {})
    modules[0].__class__ = subclass
    with pytest.raises(
        AssertionError, match=f"Incorrect types for input modules: {name} takes .*, but got Mine and"
    ) as caught:
        cls(*modules)
    assert isinstance(caught.value, ConfigError)
    with pytest.raises(TypeError):
        cls(nn.ReLU())


def test_parametrized_parts_count_as_what_they_were():
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    assert intrinsic.ConvReLU2d(conv, nn.ReLU())[0] is conv


def test_additions_take_any_callable():
    conv, x, extra = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)
    assert torch.equal(intrinsic.ConvAdd2d(conv, operator.add)(x, extra), conv(x) + extra)
    assert torch.equal(intrinsic.ConvAddReLU2d(conv, torch.add, nn.ReLU())(x, extra), (conv(x) + extra).relu())


def test_a_subclass_may_have_a_constructor_of_its_own():
    class Qat(nn.Conv2d, intrinsic._FusedModule):
        def __init__(self):
            super().__init__(4, 4, 3)

    class Mine(intrinsic.ConvReLU2d):
        """Inherits the parts."""

    assert isinstance(Qat(), intrinsic._FusedModule)
    with pytest.raises(AssertionError, match="Mine takes Conv2d and ReLU, but got Conv1d and ReLU"):
        Mine(nn.Conv1d(4, 4, 3), nn.ReLU())
