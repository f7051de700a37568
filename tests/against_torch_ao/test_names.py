"""Every name of the original's observer and fake-quantize modules, with its parameters, their order and defaults."""

from __future__ import annotations

import enum
import inspect
import warnings
from typing import Any

import pytest
import torch

import qfx
from qfx.fake_quantize import private_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ao = pytest.importorskip("torch.ao.quantization")

OBSERVERS = ao.observer
FAKE = ao.fake_quantize


def names(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (name.startswith(("default_", "fused_", "weight_", "per_channel_")) or _lives_in(value, module))
    ]


def _lives_in(value: Any, module: Any) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, shown(p.default)) for p in inspect.signature(function).parameters.values()]


def shown(default: Any) -> Any:
    if isinstance(default, enum.Enum):
        return default.name
    return default.__name__ if isinstance(default, type) else default


pytestmark = pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")

PUBLIC = [*names(OBSERVERS), *names(FAKE)]


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(PUBLIC) > 60


@pytest.mark.parametrize("name", PUBLIC)
def test_signature(name: str) -> None:
    mine = getattr(qfx, name)
    theirs = getattr(OBSERVERS, name, None) or getattr(FAKE, name)
    if isinstance(theirs, type) and issubclass(theirs, enum.Enum):
        assert [(each.name, each.value) for each in mine] == [(each.name, each.value) for each in theirs]
        return
    if hasattr(theirs, "p"):  # a factory; what it makes is compared elsewhere
        assert mine().__class__.__name__ == theirs().__class__.__name__
        return
    # Ours name the first parameter of state functions as the original does, and add nothing positional.
    assert [(n, d) for n, _, d in parameters(mine)][: len(parameters(theirs))] == [
        (n, d) for n, _, d in parameters(theirs)
    ]


@pytest.mark.parametrize("name", private_names.__all__)
def test_private_names(name: str) -> None:
    theirs = getattr(OBSERVERS, name, None) or getattr(FAKE, name)
    assert callable(theirs)
    mine = getattr(private_names, name)
    taken = [p for p in inspect.signature(theirs).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    ours = [p for p in inspect.signature(mine).parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert len(ours) == len(taken)


def test_the_derived_observer() -> None:
    assert parameters(qfx._DerivedObserverOrFakeQuantize) == parameters(ao._DerivedObserverOrFakeQuantize)
    source = (qfx.FixedQParamsObserver(0.5, 3), ao.FixedQParamsObserver(0.5, 3))
    made = [
        module._DerivedObserverOrFakeQuantize(torch.int32, [each], lambda of: of[0].calculate_qparams())
        for module, each in zip((qfx, ao), source, strict=True)
    ]
    assert made[0].calculate_qparams() == made[1].calculate_qparams()


SHAPES: list[tuple[tuple[int, ...], str, tuple[Any, ...]]] = [
    ((2, 3, 4), "PerTensor", ()),
    ((2, 3, 4), "PerAxis", (1,)),
    ((2, 3, 4), "PerAxis", (-1,)),
    ((2, 3, 4), "PerRow", ()),
    ((5,), "PerRow", ()),
    ((2, 3, 4), "PerToken", ()),
    ((8, 16), "PerGroup", (4,)),
]


@pytest.mark.parametrize(("shape", "kind", "args"), SHAPES)
def test_block_sizes(shape: tuple[int, ...], kind: str, args: tuple[Any, ...]) -> None:
    theirs = OBSERVERS.get_block_size(shape, getattr(OBSERVERS, kind)(*args))
    assert qfx.get_block_size(shape, getattr(qfx, kind)(*args)) == theirs
