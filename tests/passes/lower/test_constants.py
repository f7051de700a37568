"""Tensors of the model itself: weights, activations, both at once, or computed from one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import DowngradeError

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.w = nn.Parameter(torch.randn(8, 8))
        self.k = torch.randn(8, requires_grad=True)  # no parameter, but a tensor all the same
        self.register_buffer("b", torch.randn(3, 8))


def activation(m: Constants, x: torch.Tensor) -> Any:
    return m.layer(x) + m.k


def only_constants(m: Constants, x: torch.Tensor) -> Any:
    return m.layer(m.b)


def weight_and_activation(m: Constants, x: torch.Tensor) -> Any:
    return F.linear(torch.cat([m.layer(x), m.w]), m.w), m.w * 2, m.w + m.layer(m.w)


def computed_weight(m: Constants, x: torch.Tensor) -> Any:
    return F.linear(m.layer(x), m.w * 2)


def transposed_weight(m: Constants, x: torch.Tensor) -> Any:
    return F.linear(m.layer(x), m.w.t())


def prepared(function: Any, **how: Any) -> qfx.ObservedGraphModule:
    class Model(Constants):
        def forward(self, x: torch.Tensor) -> Any:
            return function(self, x)

    gm = qfx.prepare_fx(Model().eval(), qfx.get_default_qconfig_mapping("x86"), (X,), **how)
    gm(X)
    return gm


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("function", [activation, only_constants, weight_and_activation])
def test_constants_are_quantized_as_what_they_are_read_as(function: Any, target: str) -> None:
    gm = prepared(function, strict=True)
    expected, found = qfx.convert_to_reference_fx(gm), qfx.convert_fx(gm, target=target, strict=True)
    step = max(float(v) for k, v in expected.named_buffers() if "_scale_" in k and v.dim() == 0)
    many = isinstance(expected(X), tuple)
    for one, other in zip(expected(X), found(X), strict=True) if many else [(expected(X), found(X))]:
        torch.testing.assert_close(one, other, rtol=0, atol=2.001 * step)  # an addition inside a layer rounds once less


def test_a_weight_read_as_an_activation_is_not_rounded_as_a_weight() -> None:
    gm = prepared(weight_and_activation)
    (weight,) = (n for n in gm.graph.nodes if n.op == "get_attr" and n.target == "w")
    observers = {type(gm.get_submodule(str(user.target))).__name__: user for user in weight.users}
    assert set(observers) == {"PerChannelMinMaxObserver", "HistogramObserver"}
    assert [user.name for user in observers["PerChannelMinMaxObserver"].users] == ["linear"]
    assert sorted(user.name for user in observers["HistogramObserver"].users) == ["add", "cat", "layer_1", "mul"]


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("function", [computed_weight, transposed_weight])
def test_a_computed_weight_stays_float(function: Any, target: str) -> None:
    gm = prepared(function)
    said = r"linear \(.*\): its weight is computed \(\w+\), and kernels take a constant"
    with pytest.warns(UserWarning, match=f"1 operators that were to be quantized stay float: {said}"):
        found = qfx.convert_fx(gm, target=target)
    torch.testing.assert_close(found(X), gm(X), rtol=0, atol=0.3)
    assert "its weight is computed" in found.plan["float"]["linear"]
    assert sum("linear" in kernel for kernel in found.plan["kernels"].values()) == 1  # the layer before it
    with pytest.raises(DowngradeError, match=f"{said}. Make these weights parameters"):
        qfx.convert_fx(gm, target=target, strict=True)


@pytest.mark.parametrize("function", [computed_weight, transposed_weight])
def test_a_reference_graph_quantizes_a_computed_weight_per_channel(function: Any) -> None:
    gm = qfx.convert_to_reference_fx(prepared(function, strict=True), strict=True)
    (weight,) = gm.graph.find_nodes(op="call_function", target=torch.quantize_per_channel)
    (back,) = weight.users
    assert [user.name for user in back.users] == ["linear"]
    assert back.next.name == "linear"


def test_a_weight_that_is_an_input_of_the_model_is_quantized_in_the_reference_graph() -> None:
    class Given(nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return F.linear(x, weight)

    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    gm = qfx.prepare_fx(Given().eval(), qfx.get_default_qconfig_mapping("x86"), (x, weight))
    gm(x, weight)
    reference = qfx.convert_to_reference_fx(gm, strict=True)
    scale = weight.abs().amax(1) / 127.5
    assert torch.equal(reference._input_scale_1, scale)
    codes = torch.quantize_per_channel(weight, scale, torch.zeros(5, dtype=torch.int), 0, torch.qint8)
    seen = torch.quantize_per_tensor(
        x, float(reference._input_scale_0), int(reference._input_zero_point_0), torch.quint8
    )
    expected = F.linear(seen.dequantize(), codes.dequantize())
    result = torch.quantize_per_tensor(expected, float(reference._scale_0), int(reference._zero_point_0), torch.quint8)
    assert torch.equal(reference(x, weight), result.dequantize())
