from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import qfx
from qfx.errors import ModelStateError
from qfx.utilities import modules


class Sub(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, key1: Any = 3, *rest: Any, key2: Any = 4, **more: Any) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sub = Sub()
        self.calls: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def forward(self, x: Tensor) -> Tensor:
        args, kwargs = self.calls
        return self.sub(x, *args, **kwargs)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, (3, 4)),
        ((5,), {}, (5, 4)),
        ((), {"key2": 6}, (3, 6)),
        ((5,), {"key2": 6}, (5, 6)),
        ((5, 7, 8), {"key2": 6, "other": 9}, (5, 7, 8, 6, 9)),
    ],
)
def test_what_modules_are_called_with(args: Any, kwargs: Any, expected: Any) -> None:
    net, x = Net(), torch.zeros(3, 2)
    net.calls = (args, kwargs)
    found = qfx.get_fqn_to_example_inputs(net, (x,))
    assert list(found) == ["", "sub", "sub.linear"]
    assert found["sub"][1:] == expected
    assert all(inputs[0] is x for inputs in found.values())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_hooks_go_when_the_model_fails() -> None:
    net = Net()
    with pytest.raises(RuntimeError, match="shapes"):
        qfx.get_fqn_to_example_inputs(net, (torch.zeros(3, 5),))
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_paths() -> None:
    net = Net()
    assert qfx.getattr_from_fqn(net, "sub.linear.weight") is net.sub.linear.weight
    assert modules.parent_and_name("a.b.c") == ("a.b", "c")
    assert modules.parent_and_name("a") == ("", "a")
    assert modules.path_of_module(net, net.sub.linear) == "sub.linear"
    assert modules.path_of_module(net, net) == ""
    assert modules.path_of_module(net, nn.ReLU()) is None


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_children() -> None:
    linear = nn.Linear(2, 2)
    assert qfx.has_no_children_ignoring_parametrizations(linear)
    parametrize.register_parametrization(linear, "weight", Doubled())
    assert qfx.has_no_children_ignoring_parametrizations(linear)
    linear.add_module("more", nn.ReLU())
    assert not qfx.has_no_children_ignoring_parametrizations(linear)
    assert not qfx.has_no_children_ignoring_parametrizations(nn.Sequential(nn.ReLU()))


def test_arguments() -> None:
    forward = Net().sub.forward
    assert modules.default_arguments(forward) == {"key1": 3, "rest": (), "key2": 4, "more": {}}
    assert modules.known_arguments(forward, {"x": 1, "none": 2}) == {"x": 1}
    assert modules.completed_arguments(forward, {"key2": 6, "x": 1})["key2"] == 6
    assert modules.positional_count(forward) == 3


def test_devices() -> None:
    assert modules.unique_device(nn.ReLU()) is None
    assert modules.unique_device(nn.Linear(1, 1)) == torch.device("cpu")
    both = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1, device="meta")])
    with pytest.warns(UserWarning, match="taken as cpu"):
        assert modules.unique_device(both) == torch.device("cpu")

    class Elsewhere(nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            return [torch.zeros(1), torch.zeros(1, device="meta")]

        def buffers(self, recurse: bool = True) -> Any:
            return [type("Far", (), {"device": torch.device("cuda:0")})()]

    with pytest.raises(ModelStateError, match="lies on one device, this Elsewhere on cpu, cuda:0, meta"):
        modules.unique_device(Elsewhere())
