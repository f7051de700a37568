from __future__ import annotations

from collections.abc import Callable

import pytest
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
    """A view of the written tensor has another reader: it must stay written."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        v = y[:1]
        z = y.relu_()
        return z + v


class OfInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu_() * 1


def normalized(model: nn.Module) -> torch.fx.GraphModule:
    gm = capture(model.eval(), inference=False)
    run_steps(gm, NORMALIZE)
    return gm


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Identity()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> object:
        a, b = self.skip((x, y))
        inner = self.skip({"pair": (a + b, y)})["pair"]
        return self.skip(inner[0] * 2), self.skip([x, inner[1]]), self.skip(3)


def test_an_identity_of_several_values_goes() -> None:
    x, y = torch.randn(2), torch.randn(2)
    gm = normalized(Skips())
    assert names(gm) == ["add", "mul"]
    assert not list(gm.children())
    torch.testing.assert_close(gm(x, y), Skips()(x, y))


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


class ReadAfterwards(nn.Module):
    """Who reads the written tensor afterwards reads the call's result; who read it before, the value before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        before = y * 3
        z = y.relu_()
        y.add_(1)
        w = (x * 3).flatten()
        w.clamp_(-1, 1)
        return z + y + before + w


def test_readers_afterwards_read_the_result() -> None:
    model = ReadAfterwards()
    gm = normalized(model)
    assert not [name for name in names(gm) if name.endswith("_")]
    x = torch.randn(4)
    assert torch.equal(gm(x), model(x))


class WrittenTwice(nn.Module):
    """What an in-place call that stays returns is no new tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        v = y[:2]
        z = y.relu_().add_(1)
        return torch.cat([v, z])


def test_a_write_to_what_a_write_returned_stays() -> None:
    model = WrittenTwice()
    gm = normalized(model)
    assert {"relu_", "add_"} <= set(names(gm))
    x = torch.randn(4)
    assert torch.equal(gm(x), model(x))


class OneReLUForAll(nn.Module):
    """One relu module, in place: one of its calls writes to what a view shows, the other is seen by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        v = y[:2]
        self.relu(y)
        return torch.cat([v, self.relu(x * -3)])


def test_a_module_whose_calls_differ_is_functional_where_it_can_be() -> None:
    model = OneReLUForAll()
    gm = normalized(model)
    in_place = [gm.get_submodule(str(n.target)).inplace for n in gm.graph.nodes if n.op == "call_module"]
    assert in_place == [True, False]
    x = torch.randn(4)
    assert torch.equal(gm(x), model(x))


FUNCTIONS = {
    "elu_": lambda y: F.elu_(y, 0.5),
    "leaky_relu_": lambda y: F.leaky_relu_(y, 0.3),
    "hardtanh_": lambda y: F.hardtanh_(y, -0.5, 0.5),
    "relu_": lambda y: F.relu_(y),
    "sigmoid_": lambda y: torch.sigmoid_(y),
    "tanh_": lambda y: torch.tanh_(y),
    "exp_": lambda y: torch.exp_(y),
    "abs_": lambda y: torch.abs_(y),
    "neg_": lambda y: torch.negative_(y),
    "clip_": lambda y: torch.clip_(y, -0.1, 0.1),
    "method clip_": lambda y: y.clip_(-0.1, 0.1),
    "method pow_": lambda y: y.pow_(2),
}
OPAQUE = {
    "celu_": lambda y: F.celu_(y),
    "celu": lambda y: F.celu(y, 1.0, True),
    "selu": lambda y: F.selu(y, inplace=True),
    "out": lambda y: torch.floor(y, out=y),
    "zero_": lambda y: y.zero_(),
}


class Statement(nn.Module):
    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        self.write(y)
        return y + 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_in_place_function_becomes_its_functional_twin(name: str) -> None:
    model = Statement(FUNCTIONS[name])
    gm = normalized(model)
    assert not [called for called in names(gm) if called.endswith("_")]
    x = torch.randn(4)
    assert torch.equal(gm(x), model(x))


@pytest.mark.parametrize("name", OPAQUE)
def test_an_unknown_write_is_no_dead_code(name: str) -> None:
    model = Statement(OPAQUE[name])
    gm = normalized(model)
    assert len(names(gm)) == 3
    x = torch.randn(4)
    assert torch.equal(gm(x), model(x))


def test_an_unknown_module_in_place_is_no_dead_code() -> None:
    class Celu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.celu = nn.CELU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            self.celu(y)
            return y + 1

    model, x = Celu(), torch.randn(4)
    assert torch.equal(normalized(model)(x), model(x))


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
            view = y.flatten(1)
            return self.relu(y).flatten(1) + view

    model = SeenOnce()
    gm = normalized(model)
    assert gm.get_submodule("relu").inplace
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(gm(x), model(x))


@pytest.mark.parametrize("function", [F.elu, F.hardswish, F.leaky_relu, F.relu])
def test_an_input_is_not_written_to_save_memory(function: Callable[..., torch.Tensor]) -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x, inplace=True)

    gm, x = normalized(Net()), torch.randn(3)
    before = x.clone()
    assert torch.equal(gm(x), function(x))
    assert torch.equal(x, before)


def test_an_input_that_is_written_for_its_own_sake_is_written() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
            F.relu(cache, inplace=True)
            cache.add_(1)
            return x * 2

    gm, x, cache = normalized(Net()), torch.ones(2), torch.tensor([-1.0, 2.0])
    gm(x, cache)
    assert cache.tolist() == [1.0, 3.0]
