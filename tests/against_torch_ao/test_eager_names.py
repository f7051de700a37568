"""Eager mode has the original's names, signatures and tables."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
from torch import nn

import qfx
from qfx import eager
from qfx.nn import intrinsic, qat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ao = pytest.importorskip("torch.ao.quantization")
    their_mappings = pytest.importorskip("torch.ao.quantization.quantization_mappings")
    their_fusion = pytest.importorskip("torch.ao.quantization.fuse_modules")
    their_quantize = pytest.importorskip("torch.ao.quantization.quantize")

# Where our tables say more: one-dimensional convolutions are trained with rounded weights like the others.
MORE = {
    "DEFAULT_STATIC_QUANT_MODULE_MAPPINGS": {qat.Conv1d, intrinsic.qat.ConvReLU1d},
    "DEFAULT_QAT_MODULE_MAPPINGS": {nn.Conv1d, intrinsic.ConvReLU1d},
}


def name_of(row: Any) -> str:
    return f"{row.__module__.split('.modules')[0]}.{row.__name__}" if isinstance(row, type) else str(row)


def local(row: Any) -> tuple[str, ...]:
    """The name of a class without what differs: the library and the file."""
    words = name_of(row).replace("torch.ao.", "qfx.").split(".")
    families = {"intrinsic", "qat", "quantized", "dynamic", "reference", "sparse", "quantizable"}
    return (words[0], *(w for w in words if w in families), words[-1])


@pytest.mark.parametrize("name", [n for n in vars(eager) if n.endswith("_MAPPINGS")])
def test_mappings(name: str) -> None:
    mine = {k: v for k, v in getattr(eager, name).items() if k not in MORE.get(name, ())}
    stubs = {"QuantStub", "DeQuantStub"}
    rows = {local(k)[-1:] if local(k)[-1] in stubs else local(k): local(v) for k, v in mine.items()}
    original = getattr(their_mappings, name)
    expected = {local(k)[-1:] if local(k)[-1] in stubs else local(k): local(v) for k, v in original.items()}
    assert rows == expected


def test_known_ranges() -> None:
    mine, expected = eager.DEFAULT_MODULE_TO_ACT_POST_PROCESS, their_mappings.DEFAULT_MODULE_TO_ACT_POST_PROCESS
    assert list(mine) == list(expected)
    for kind, factory in mine.items():
        assert [float(q) for q in factory().calculate_qparams()] == [
            float(q) for q in expected[kind]().calculate_qparams()
        ]


FUNCTIONS = sorted(name for name in eager.__all__ if not name.startswith("DEFAULT_"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name: str) -> None:
    original = next(getattr(m, name) for m in (ao, their_quantize, their_fusion) if hasattr(m, name))
    parameters, expected = inspect.signature(getattr(eager, name)).parameters, inspect.signature(original).parameters
    assert list(parameters) == list(expected)
    for key, parameter in expected.items():
        if not callable(parameter.default) or parameter.default is inspect.Parameter.empty:
            assert parameters[key].default == parameter.default, key


def test_nothing_public_is_missing() -> None:
    modules = ("quantize", "fuse_modules", "fuser_method_mappings", "quantization_mappings", "stubs")
    public = {name for module in modules for name in pytest.importorskip(f"torch.ao.quantization.{module}").__all__}
    assert public - set(dir(qfx)) == set()
