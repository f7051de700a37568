"""Every spelling reads to the same op, and nothing a small zoo captures is without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx import ops
from qfx.graph import GraphView
from qfx.graph.values import Reading


class Wrapped(nn.Module):
    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)
        self.w = nn.Parameter(torch.ones(4, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


X = torch.rand(2, 4, 6, 6)


def readings(function: Callable[..., Any], **modules: nn.Module) -> dict[str, Reading]:
    model = Wrapped(function, **modules).eval()
    found = {}
    for name, gm in (
        ("symbolic", torch.fx.symbolic_trace(model)),
        ("exported", torch.export.export(model, (X,)).module()),
    ):
        view = GraphView(gm)
        (output,) = gm.graph.find_nodes(op="output")
        value = output.args[0]
        found[name] = view.read(value[0] if isinstance(value, list | tuple) else value)
    return found


SPELLINGS: dict[str, list[tuple[Callable[..., Any], dict[str, nn.Module]]]] = {
    "relu": [
        (lambda m, x: m.a(x), {"a": nn.ReLU()}),
        (lambda m, x: F.relu(x), {}),
        (lambda m, x: torch.relu(x), {}),
        (lambda m, x: x.relu(), {}),
    ],
    "max_pool2d": [
        (lambda m, x: m.a(x), {"a": nn.MaxPool2d(2)}),
        (lambda m, x: F.max_pool2d(x, 2), {}),
        (lambda m, x: torch.max_pool2d(x, (2, 2)), {}),
    ],
    "adaptive_max_pool2d": [
        (lambda m, x: m.a(x), {"a": nn.AdaptiveMaxPool2d(2)}),
        (lambda m, x: F.adaptive_max_pool2d(x, (2, 2)), {}),
    ],
    "avg_pool2d": [(lambda m, x: m.a(x), {"a": nn.AvgPool2d(2)}), (lambda m, x: F.avg_pool2d(x, 2), {})],
    "conv2d": [
        (lambda m, x: m.a(x), {"a": nn.Conv2d(4, 4, 1, bias=False, stride=2)}),
        (lambda m, x: F.conv2d(x, m.w, stride=2), {}),
        (lambda m, x: torch.conv2d(x, m.w, None, 2), {}),
    ],
    "mean": [
        (lambda m, x: x.mean([2, 3]), {}),
        (lambda m, x: torch.mean(x, (2, 3)), {}),
        (lambda m, x: x.mean(dim=(2, 3), keepdim=False), {}),
    ],
    "reshape": [
        (lambda m, x: x.view(2, -1), {}),
        (lambda m, x: x.reshape((2, -1)), {}),
        (lambda m, x: torch.reshape(x, (2, -1)), {}),
    ],
    "clamp": [
        (lambda m, x: x.clamp(0, 6), {}),
        (lambda m, x: torch.clamp(x, 0, 6), {}),
        (lambda m, x: torch.clip(x, 0, 6), {}),
    ],
    "softmax": [
        (lambda m, x: m.a(x), {"a": nn.Softmax(1)}),
        (lambda m, x: F.softmax(x, 1), {}),
        (lambda m, x: x.softmax(1), {}),
    ],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_all_spellings_read_the_same(name: str) -> None:
    seen = [r for function, modules in SPELLINGS[name] for r in readings(function, **modules).values()]
    assert {r.op for r in seen} == {ops.REGISTRY[name]}
    # inplace is a way of computing, not a value
    attrs = [{k: v for k, v in r.attrs.items() if k != "inplace"} for r in seen]
    assert all(each == attrs[0] for each in attrs), attrs


class Zoo(nn.Module):
    """One of everything small networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.act = nn.ModuleList(
            [nn.Hardswish(), nn.SiLU(), nn.GELU(), nn.ELU(), nn.LeakyReLU(), nn.Hardsigmoid(), nn.PReLU()]
        )
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.group = nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.stem(x))
        for act in self.act:
            x = act(x)
        y = F.interpolate(self.up(F.max_pool2d(x, 2)), scale_factor=1.0)
        x = torch.cat([x, F.pad(y, (0, 0, 0, 0))], dim=1)
        a, b = x.chunk(2, dim=1)
        x = self.group(a * torch.sigmoid(b) + 1.5)
        x = x.flatten(2).permute(0, 2, 1)
        x = self.norm(x)
        s = torch.matmul(self.q(x), self.k(x).transpose(-2, -1)) / 8**0.5
        x = torch.matmul(torch.softmax(s, -1), self.v(x))
        x = F.scaled_dot_product_attention(x.unsqueeze(1), x.unsqueeze(1), x.unsqueeze(1)).squeeze(1)
        return torch.tanh(x.mean(1)).clamp(min=-0.5)


# Checks that torch.export adds; they compute nothing.
NOT_OPS = {"GuardsFn", "get_attr"}


@pytest.mark.parametrize("captured", ["symbolic", "exported"])
def test_the_zoo_has_no_stranger(captured: str) -> None:
    model = Zoo().eval()
    gm = torch.fx.symbolic_trace(model) if captured == "symbolic" else torch.export.export(model, (X,)).module()
    view = GraphView(gm)
    strangers = {view.read(n).op.name for n in gm.graph.nodes if view.read(n).op.opaque} - NOT_OPS
    assert strangers == set()


@pytest.mark.parametrize("tied", [False, True])
def test_tied_weights_and_shared_modules_have_several_readers(tied: bool) -> None:
    a, b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    if tied:
        b.weight = a.weight
    gm = torch.fx.symbolic_trace(nn.Sequential(a, b, a))
    view = GraphView(gm)
    first, second, third = (view.read(n) for n in gm.graph.nodes if n.op == "call_module")
    assert first.input("w") is third.input("w")
    assert (first.input("w") is second.input("w")) is tied
    assert len(view.readers(first.input("w"))) == (3 if tied else 2)
    assert view.callers("0") == 2


@pytest.mark.parametrize("bn", [False, True])
def test_output_zero_of_a_tuple_is_seen_through(bn: bool) -> None:
    def function(m: Any, x: Any) -> Any:
        if bn:
            one = torch.ones(4)
            return torch.ops.aten._native_batch_norm_legit_no_training(x, one, one, one, one, 0.1, 1e-5)[0]
        return torch.ops.aten.max_pool2d_with_indices(x, [2, 2])[0]

    reading = readings(function)["exported"]
    assert reading.op is (ops.batch_norm if bn else ops.max_pool2d)
    assert reading.node.target.__name__ == "getitem"
