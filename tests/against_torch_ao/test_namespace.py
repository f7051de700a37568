"""Signatures of the names people know, against the original's; `tests/namespace.toml` lists what differs and why."""

from __future__ import annotations

import enum
import inspect
import tomllib
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import qfx

TABLES = tomllib.loads((Path(__file__).parents[1] / "namespace.toml").read_text())
NAMES: dict[str, str] = TABLES["names"]
DIFFERENCES: dict[str, str] = TABLES["differences"]

# Without a counterpart in this torch, and why.
NO_ORIGINAL = {
    "move_exported_model_to_eval": "deleted from PyTorch 2.13 already",
    "move_exported_model_to_train": "deleted from PyTorch 2.13 already",
    "allow_exported_model_train_eval": "deleted from PyTorch 2.13 already",
    "generate_numeric_debug_handle": "deleted from PyTorch 2.13 already",
    "get_default_backend_config": "qfx's own: the native one and data moves",
}


@cache
def original(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch.ao.quantization.quantize_fx")
        from torch.ao import quantization
        from torch.ao.quantization import (
            backend_config,
            qconfig,
            quantization_mappings,
            quantize_fx,
            quantize_jit,
            utils,
        )
        from torch.ao.quantization.backend_config import x86
        from torch.ao.quantization.fx import custom_config, graph_module, tracer
    for module in (
        quantization,
        backend_config,
        x86,
        custom_config,
        quantize_fx,
        quantize_jit,
        qconfig,
        quantization_mappings,
        utils,
        graph_module,
        tracer,
    ):
        if hasattr(module, name):
            return getattr(module, name)
    return pytest.skip(f"this torch has no {name}")


def shown(default: Any) -> Any:
    if isinstance(default, enum.Enum):
        return default.name
    return getattr(default, "__name__", default if isinstance(default, int | float | str | None) else str(default))


def parameters(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, shown(p.default)) for p in inspect.signature(function).parameters.values()]


def comparable(name: str) -> bool:
    value = getattr(qfx, name)
    return (
        value is not Any
        and (inspect.isfunction(value) or inspect.isclass(value))
        and not (isinstance(value, type) and issubclass(value, enum.Enum))
    )


def differs(name: str) -> bool:
    """Ours begins with the parameters of the original, in its order and with its defaults; what follows is by name."""
    theirs, mine = parameters(original(name)), parameters(getattr(qfx, name))
    more = list(inspect.signature(getattr(qfx, name)).parameters.values())[len(theirs) :]
    return mine[: len(theirs)] != theirs or any(p.kind is not p.KEYWORD_ONLY and p.default is p.empty for p in more)


@pytest.mark.parametrize("name", [n for n in NAMES if comparable(n) and n not in NO_ORIGINAL])
def test_signatures_are_those_of_the_original(name: str) -> None:
    assert differs(name) == (name in DIFFERENCES)
