"""Containers onednn alone computes in one go, made by its backend config."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.nn.intrinsic import quantized as fused

needs_onednn = pytest.mark.skipif(
    "onednn" not in torch.backends.quantized.supported_engines, reason="this build of torch has no onednn"
)
pytestmark = needs_onednn


class Added(nn.Module):
    """``relu(bn(conv(x)) + shortcut(x))``, or without relu."""

    def __init__(self, *, relu: bool, swapped: bool = False, broadcast: bool = False) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.shortcut = nn.Conv2d(3, 4, 1)
        self.relu, self.swapped, self.broadcast = nn.ReLU() if relu else nn.Identity(), swapped, broadcast

    def forward(self, x: Tensor) -> Tensor:
        y = self.shortcut(x)
        if self.broadcast:
            y = y.mean((2, 3), keepdim=True)
        z = self.bn(self.conv(x))
        return self.relu(y + z if self.swapped else operator.add(z, y))  # type: ignore[no-any-return]


def calibrated(model: nn.Module, x: Tensor) -> Any:
    torch.backends.quantized.engine = "onednn"
    mapping, backend = qfx.get_default_qconfig_mapping("onednn"), qfx.get_onednn_backend_config()
    prepared = qfx.prepare_fx(model.eval(), mapping, (x,), backend_config=backend)
    prepared(x)
    return prepared


def close(converted: Any, prepared: Any, x: Tensor) -> None:
    """The same codes as the reference graph, but for what lies half way between two."""
    reference = qfx.convert_to_reference_fx(prepared)
    last = [node for node in reference.graph.nodes if node.target is torch.quantize_per_tensor][-1]
    scale = float(reference.get_buffer(str(last.args[1].target)))  # type: ignore[union-attr]
    found, expected = converted(x), reference(x)
    assert (found - expected).abs().max() <= scale * 1.01
    assert ((found - expected).abs() > scale / 2).float().mean() < 0.02


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("engine", ["x86", "onednn"])
def test_an_addition_inside_a_convolution(relu: bool, swapped: bool, engine: str) -> None:
    model, x = Added(relu=relu, swapped=swapped), torch.randn(2, 3, 6, 6)
    prepared = calibrated(model, x)
    torch.backends.quantized.engine = engine
    converted = qfx.convert_fx(prepared, strict=True)
    assert type(converted.conv) is (fused.ConvAddReLU2d if relu else fused.ConvAdd2d)
    assert converted.plan["kernels"]["conv"] == f"quantized.conv2d_add{'_relu' if relu else ''} (onednn)"
    close(converted, prepared, x)
    close(converted, prepared, x * 2)  # twice the calibrated range saturates


@pytest.mark.parametrize("relu", [False, True])
def test_on_plain_integers(relu: bool) -> None:
    model, x = Added(relu=relu), torch.randn(2, 3, 6, 6)
    prepared = calibrated(model, x)
    converted = qfx.convert_fx(prepared, target="onednn", strict=True)
    assert "onednn.conv2d_add" in "".join(converted.plan["kernels"].values())
    close(converted, prepared, x)


@pytest.mark.parametrize("after", [nn.LeakyReLU(0.2), nn.Tanh()])
def test_linear_and_what_follows(after: nn.Module) -> None:
    model, x = nn.Sequential(nn.Linear(6, 5), after), torch.randn(8, 6)
    prepared = calibrated(model, x)
    converted = qfx.convert_fx(prepared, strict=True)
    kind = f"Linear{type(after).__name__}"
    assert type(converted.get_submodule("0")).__name__ == kind
    close(converted, prepared, x)
    left = qfx.convert_fx(prepared, target="onednn").plan["unlowered"]
    assert list(left.values()) == [[f"the target has no integer kernel for {kind}"]]


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_an_addition_that_broadcasts_stays_float(target: str) -> None:
    model, x = Added(relu=True, broadcast=True), torch.randn(2, 3, 6, 6)
    prepared = calibrated(model, x)
    converted = qfx.convert_fx(prepared, target=target)
    ((name, reasons),) = converted.plan["unlowered"].items()
    assert name.startswith("conv")
    assert any("has shape [2, 4, 1, 1], the sum [2, 4, 6, 6]" in reason for reason in reasons)
    torch.testing.assert_close(converted(x), qfx.convert_to_reference_fx(prepared)(x), atol=0.05, rtol=0)


@pytest.mark.filterwarnings("ignore:.*never ran")
def test_a_model_that_never_ran_has_the_graph_it_would_have() -> None:
    x = torch.randn(2, 3, 6, 6)
    torch.backends.quantized.engine = "onednn"
    mapping, backend = qfx.get_default_qconfig_mapping("onednn"), qfx.get_onednn_backend_config()
    prepared = qfx.prepare_fx(Added(relu=True).eval(), mapping, (x,), backend_config=backend)
    unseen = qfx.convert_fx(prepared)
    assert not unseen.plan["unlowered"]
    prepared(x)
    assert [node.op for node in unseen.graph.nodes] == [node.op for node in qfx.convert_fx(prepared).graph.nodes]


def test_another_engine_has_no_such_kernel() -> None:
    x = torch.randn(2, 3, 6, 6)
    prepared = calibrated(Added(relu=True), x)
    torch.backends.quantized.engine = "fbgemm"
    (reasons,) = qfx.convert_fx(prepared).plan["unlowered"].values()
    assert any("onednn alone has a kernel for ConvAddReLU2d, and the engine is 'fbgemm'" in each for each in reasons)
