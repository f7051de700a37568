from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from qfx.capture import capture
from qfx.passes import run_steps
from qfx.passes.normalize import NORMALIZE


def names(gm: torch.fx.GraphModule) -> list[str]:
    return [
        str(n.target) if n.op != "call_function" else n.target.__name__
        for n in gm.graph.nodes
        if n.op.startswith("call")
    ]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y.relu_()
        y = self.conv(x) * 2
        return y.add_(1).relu_()


class Seen(nn.Module):
    """The written tensor has another reader: it must stay written."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        z = y.relu_()
        return z + y


class OfInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu_() * 1


def normalized(model: nn.Module) -> torch.fx.GraphModule:
    gm = capture(model.eval())
    run_steps(gm, NORMALIZE)
    return gm


def test_identity_and_dropout_go() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2), nn.Dropout(0.5), nn.Identity())
    gm = normalized(model)
    assert names(gm) == ["1"]
    x = torch.randn(3, 2)
    assert torch.equal(gm(x), model(x))
    assert "0" not in dict(gm.named_children())


def test_functional_dropout_goes_only_when_off() -> None:
    class On(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(F.dropout(x, training=False), 0.5, True)

    assert names(normalized(On())) == ["dropout"]


def test_in_place_becomes_functional_where_nobody_sees() -> None:
    model = InPlace()
    gm = normalized(model)
    assert "add_" not in names(gm)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(gm(x), model(x))


def test_a_seen_write_stays() -> None:
    for model in (Seen(), OfInput()):
        gm = normalized(model)
        assert "relu_" in names(gm)
        x = torch.randn(4)
        torch.testing.assert_close(gm(x.clone()), model(x.clone()))


class InPlaceModules(nn.Module):
    """As residual networks are written: one relu module, in place, called twice; an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.relu(self.a(x)))
        y += x
        return self.relu(y)


def test_modules_in_place_become_functional_where_nobody_sees() -> None:
    model = InPlaceModules()
    traced = torch.fx.symbolic_trace(model)
    run_steps(traced, NORMALIZE)
    assert model.relu.inplace  # the user's module is not the graph's
    relu = traced.get_submodule("relu")
    assert not relu.inplace
    assert names(traced) == ["a", "relu", "b", "add", "relu"]
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(traced(x), model(x.clone()))


def test_a_module_in_place_stays_where_one_of_its_calls_is_seen() -> None:
    class SeenOnce(InPlaceModules):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.relu(y) + y + self.relu(self.b(x))

    gm = normalized(SeenOnce())
    assert gm.get_submodule("relu").inplace
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(gm(x), gm(x))
