"""A value that is written in place has no quantized copy: the copy would miss the write, and the write the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.passes.lower.splits import sink_splits
from qfx.passes.pipeline import Context

MAPPING = qfx.get_default_qconfig_mapping("x86")
X = torch.randn(4, 8, 6, 6)


class Net(nn.Module):
    def __init__(self, body: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = body
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.w = nn.Parameter(torch.randn(4, 8, 1, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def half(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y[:, :4].mul_(0.5)
    return y


def relu(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y[:, :4].relu_()
    return m.d(y)


def fill(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y[:, :4].fill_(2.0)
    return y


def copy(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y[:, :4].copy_(y[:, 4:] * 3)
    return y


def clamp(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    v = y.reshape(4, -1)
    v.clamp_(-0.1, 0.1)
    return y


def chunks(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, b = m.c(x).chunk(2, 1)
    a.add_(1)
    return torch.cat([a, b], 1)


def unknown_view(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y.unfold(1, 4, 4).mul_(0.1)
    return m.d(y)


def transposed(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    y.mT.mul_(0.1)
    return m.d(y)


def unknown_function(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    F.celu_(y)
    return m.d(y)


def given(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.c(x)
    x[:, 1].fill_(5.0)
    return y + x


WRITES = [half, relu, fill, copy, clamp, chunks, unknown_view, transposed, unknown_function, given]
WRITERS = {
    "half": "mul_", "relu": "relu_", "fill": "fill_", "copy": "copy_", "clamp": "clamp_", "chunks": "add_",
    "unknown_view": "mul_", "transposed": "mul_", "unknown_function": "celu_", "given": "fill_",
}  # fmt: skip


@torch.no_grad()
def converted(model: nn.Module, target: str) -> tuple[qfx.QuantizedGraphModule, float]:
    """The converted model, and the noise of its output as a share of the signal."""
    prepared = qfx.prepare_fx(model.eval(), MAPPING, (X,))
    prepared(X.clone())
    gm, expected = qfx.convert_fx(prepared, target=target), model(X.clone())
    return gm, float((gm(X.clone()) - expected).pow(2).sum() / expected.pow(2).sum())


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
@pytest.mark.parametrize("body", WRITES)
def test_a_write_through_a_view_is_not_lost(body: Any, target: str) -> None:
    gm, noise = converted(Net(body), target)
    assert noise < 1e-3
    assert f"c is written in place by {WRITERS[body.__name__]}" in gm.plan["float"]["c"] or body is given
    assert ("x is written in place by fill_" in gm.plan["float"]["c"]) is (body is given)


def constant(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.w.mul_(0.5)
    return F.conv2d(m.c(x), m.w)


def test_a_weight_that_is_written_is_not_packed() -> None:
    model = Net(constant).eval()
    with torch.no_grad():
        prepared = qfx.prepare_fx(model, MAPPING, (X,))
        prepared(X)
        gm = qfx.convert_fx(prepared)
        one, two = gm(X), gm(X)
    assert "its w is written in place by mul_" in gm.plan["float"]["conv2d"]
    torch.testing.assert_close(one, two * 2)


def test_the_last_value_of_a_memory_is_like_any_other() -> None:
    def after(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.c(x)
        y[:, :4].mul_(0.5)
        return m.d(y.flatten(2).unflatten(2, (6, 6)))

    gm, noise = converted(Net(after), "native")
    assert noise < 1e-3
    assert "d" not in gm.plan["float"]
    assert set(gm.plan["kernels"].values()) >= {"quantized.conv2d (onednn)"}


def test_a_write_nobody_else_sees_costs_nothing() -> None:
    def statement(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.c(x)
        y.relu_()
        return m.d(y)

    gm, noise = converted(Net(statement), "native")
    assert noise < 1e-3
    assert not gm.plan["float"]
    assert len(gm.plan["kernels"]) == 2


class Split(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        back = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize()
        a, b = back.chunk(2, 1)
        return torch.cat([self.write(a), b], 1)

    def write(self, a: torch.Tensor) -> torch.Tensor:
        return a.add_(1)


class Untouched(Split):
    def write(self, a: torch.Tensor) -> torch.Tensor:
        return a + 1


@pytest.mark.parametrize(("model", "sinks"), [(Split(), False), (Untouched(), True)])
def test_dequantize_stays_before_a_split_whose_item_is_written(model: nn.Module, sinks: bool) -> None:
    gm = torch.fx.symbolic_trace(model)
    assert sink_splits(gm, Context.of(gm)) is sinks
    gm.recompile()
    assert torch.equal(gm(X), model(X))
