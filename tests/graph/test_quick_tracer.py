from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Tracer

from qfx.graph.quick_tracer import QuickTracer


class Pair(NamedTuple):
    first: Any
    second: Any


def take(pair: Pair) -> Any:
    return pair[0] + pair[1]


torch.fx.wrap("take")


class Parameters(nn.Module):
    """Parameters read as attributes, out of a list, twice, and by two names; a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.tied = self.w
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(4)) for _ in range(2)])
        self.plain = [self.b]
        self.register_buffer("offset", torch.rand(4))
        self.constant = torch.rand(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(F.linear(x, self.w, self.b), self.tied)
        x = x * self.scales[0] + self.scales[1] + self.plain[0]
        return x + self.offset + self.constant


class Arguments(nn.Module):
    """Tuples, named tuples, dicts, slices and modules with arguments of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor, more: dict[str, Tensor]) -> Any:
        x = self.inner(x).reshape((-1, 4))[:, 1:].sum(dim=(0, 1), keepdim=True)
        y = take(Pair(x, more["y"]))
        return {"sum": torch.cat([x, y], dim=0), "parts": (x, y)}


def listing(graph: Any) -> list[str]:
    return [f"{n.op} {n.name} {n.target} {n.args} {n.kwargs} {n.meta.get('nn_module_stack')}" for n in graph.nodes]


@pytest.mark.parametrize("model", [Parameters(), Arguments()])
@pytest.mark.parametrize("buffers", [False, True])
def test_it_records_what_the_tracer_of_torch_records(model: nn.Module, buffers: bool) -> None:
    def traced(tracer: Tracer) -> list[str]:
        tracer.proxy_buffer_attributes = buffers
        return listing(tracer.trace(model))

    assert traced(QuickTracer()) == traced(Tracer())


def test_a_model_of_many_parameters_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.eye(4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.w)

    model, searches = nn.Sequential(*(Layer() for _ in range(30))), []
    found = nn.Module.named_parameters

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        searches.append(self)
        return found(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "named_parameters", counted)
    gm = GraphModule(model, QuickTracer().trace(model))
    assert len(searches) == 1
    x = torch.randn(2, 4)
    torch.testing.assert_close(gm(x), model(x), rtol=0, atol=0)


def test_a_parameter_that_comes_during_tracing_is_found_as_torch_finds_it() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.eye(4))

        def forward(self, x: Tensor) -> Tensor:
            x = F.linear(x, self.w)
            self.late = nn.Parameter(torch.ones(4))
            return x + self.late

    assert [n.target for n in QuickTracer().trace(Late()).nodes if n.op == "get_attr"] == ["w", "late"]
