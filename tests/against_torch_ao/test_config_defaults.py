"""The default mappings say what the original's say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import qfx.config as ours

theirs = pytest.importorskip("torch.ao.quantization")

# The original warns about the arguments of its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore")

FACTS = ("dtype", "qscheme", "quant_min", "quant_max", "reduce_range", "ch_axis", "scale", "zero_point")


def facts(factory: Any) -> dict[str, Any]:
    observer = factory()
    found = {name: getattr(observer, name) for name in FACTS if hasattr(observer, name)}
    return {"class": type(observer).__name__} | {
        name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in found.items()
    }


def described(qconfig: Any) -> Any:
    return None if qconfig is None else (facts(qconfig.activation), facts(qconfig.weight))


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_default_qconfigs_agree(backend: str) -> None:
    mine, original = ours.get_default_qconfig(backend), theirs.get_default_qconfig(backend)
    assert described(mine) == described(original)


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_default_mappings_name_the_same_types(backend: str) -> None:
    mine, original = ours.get_default_qconfig_mapping(backend), theirs.get_default_qconfig_mapping(backend)

    def named(mapping: Any) -> dict[str, Any]:
        return {
            getattr(kind, "__name__", str(kind)): described(qconfig)
            for kind, qconfig in mapping.object_type_qconfigs.items()
            if not str(getattr(kind, "__module__", "")).startswith(("torch.ao", "qfx"))
        }

    assert named(mine) == named(original)
