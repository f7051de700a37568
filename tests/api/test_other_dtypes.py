"""Values of another dtype than float32 in the middle of a model: kernels do not take them, and convert says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

V = torch.randn(4, 8)
SAID = "it is not float32, and quantized kernels stand between float32 values"


class Layers(nn.Module):
    def __init__(self, body: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body, self.a, self.b = body, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


BODIES: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], set[str], torch.Tensor]] = {
    "double": (lambda m, x: m.a(x) + m.b(x).double(), {"double", "add"}, V),
    "there and back": (lambda m, x: m.b((m.a(x).double() * 2).float()), {"double", "mul"}, V),
    "half": (lambda m, x: F.relu(m.a(x).half() + 1).float(), {"half", "relu"}, V),
    "cat": (lambda m, x: torch.cat([m.a(x).to(torch.float64), m.b(x)], 1), {"to", "cat"}, V),
    "input": (lambda m, x: m.a(x.float()) + x.flatten(1), {"x", "flatten", "add"}, V.double()),
}


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
@pytest.mark.parametrize("name", BODIES)
def test_what_is_not_float32_stays_float_with_the_reason(name: str, target: str) -> None:
    body, stay, x = BODIES[name]
    model = Layers(body).eval()
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    with pytest.warns(UserWarning, match="values that were to be quantized are not"):
        gm = qfx.convert_fx(prepared, target=target)
    expected = model(x)
    found = gm(x)
    assert found.dtype is expected.dtype
    assert float(((found - expected).pow(2).sum() / expected.pow(2).sum()).detach()) < 1e-3
    assert {node for node, said in gm.plan["float"].items() if said == SAID} == stay
    if target != "reference":
        assert any("linear" in kernel for kernel in gm.plan["kernels"].values())


def test_the_last_dtype_counts() -> None:
    observer = qfx.MinMaxObserver()
    observer(V.double())
    assert observer.seen_float32 == [False]
    observer(V)
    assert observer.seen_float32 == [True]
    observer.reset_min_max_vals()
    assert observer.seen_float32 == []
