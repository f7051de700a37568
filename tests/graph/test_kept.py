from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx.capture import capture
from qfx.graph.kept import KeptGraphModule
from qfx.graph.provenance import origins


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.w = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x) + 1
        y = F.linear(y, self.w)[..., :2].reshape(-1, 2)
        return {"out": torch.cat([y, y + 1], dim=1)}


class Packed:
    """Stands for a packed weight: made anew, never copied."""

    def __init__(self, value: float) -> None:
        self.value = value

    def pack(self) -> Any:
        return Unpicklable(self.value)


class Unpicklable:
    def __init__(self, value: float) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        raise AssertionError("a packed weight must not be pickled")

    def __deepcopy__(self, memo: Any) -> Any:
        raise AssertionError("a packed weight must not be copied")


def kept() -> KeptGraphModule:
    gm = KeptGraphModule.adopt(capture(Net().eval()), {"add": {"why": "because"}})
    gm.note = "kept"
    gm.rebuilt["_packed_weight_0"] = Packed(3.0)
    gm.pack("_packed_weight_0")
    return gm


def saved(gm: KeptGraphModule) -> KeptGraphModule:
    file = io.BytesIO()
    torch.save(gm, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"copy": copy.deepcopy, "pickle": lambda gm: pickle.loads(pickle.dumps(gm)), "torch.save": saved}


@pytest.mark.parametrize("way", WAYS)
def test_everything_survives(way: str) -> None:
    gm, x = kept(), torch.randn(3, 4)
    other = WAYS[way](WAYS[way](gm))
    assert isinstance(other, KeptGraphModule)
    assert torch.equal(other(x)["out"], gm(x)["out"])
    assert [n.name for n in other.graph.nodes] == [n.name for n in gm.graph.nodes]
    assert [origins(n) for n in other.graph.nodes] == [origins(n) for n in gm.graph.nodes]
    assert other.plan == gm.plan
    assert other.note == "kept"
    assert other._packed_weight_0.value == 3.0
    assert other._packed_weight_0 is not gm._packed_weight_0
    assert other.training is False
    assert list(other.state_dict()) == list(gm.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_shared(way: str) -> None:
    gm = kept()
    other = WAYS[way](gm)
    other.fc.weight.data.zero_()
    other.plan["add"]["why"] = "no"
    assert gm.fc.weight.abs().sum() > 0
    assert gm.plan["add"]["why"] == "because"


def test_aliases_stay_aliases() -> None:
    gm = kept()
    gm.add_module("again", gm.fc)
    for way in WAYS.values():
        other = way(gm)
        assert other.again is other.fc


def test_prune_drops_what_no_node_refers_to() -> None:
    gm = kept()
    gm.unused = nn.Parameter(torch.zeros(3))
    gm.spare = nn.Linear(2, 2)
    gm.table = nn.Embedding(3, 2)
    gm.prune(keep=["table"])
    assert set(dict(gm.named_parameters())) == {"fc.weight", "fc.bias", "w", "table.weight"}
    x = torch.randn(3, 4)
    assert torch.equal(gm(x)["out"], copy.deepcopy(gm)(x)["out"])
