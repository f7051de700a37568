"""A layer called several times takes in the batch norm behind it, where every call has the same one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.nn import intrinsic
from qfx.nn.intrinsic import quantized


class Siamese(nn.Module):
    """Two inputs through one layer and one batch norm; `other` gives the second call a norm of its own."""

    def __init__(self, layer: nn.Module, norm: nn.Module, *, other: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.norm, self.other = layer, norm, other or norm
        for each in (self.norm, self.other):
            nn.init.uniform_(each.running_mean, -1, 1)
            nn.init.uniform_(each.running_var, 0.5, 2)
            nn.init.uniform_(each.weight, 0.5, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)) - self.other(self.layer(y))


def norms(gm: torch.fx.GraphModule) -> int:
    return sum(isinstance(gm.get_submodule(str(n.target)), nn.modules.batchnorm._BatchNorm) for n in calls(gm))


def calls(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return list(gm.graph.find_nodes(op="call_module"))


IMAGES = (torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6))
ROWS = (torch.randn(4, 3), torch.randn(4, 3))
LAYERS = {
    "conv": (lambda: nn.Conv2d(3, 4, 3), lambda: nn.BatchNorm2d(4), IMAGES),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, bias=False), lambda: nn.BatchNorm2d(4), IMAGES),
    "linear": (lambda: nn.Linear(3, 4), lambda: nn.BatchNorm1d(4), ROWS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_norm_behind_every_call_is_folded(name: str) -> None:
    layer, norm, inputs = LAYERS[name]
    model = Siamese(layer(), norm()).eval()
    fused = qfx.fuse_fx(model, example_inputs=inputs)
    assert norms(fused) == 0
    assert len(calls(fused)) == 2
    torch.testing.assert_close(fused(*inputs), model(*inputs))


def test_every_shared_layer_is_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = Siamese(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
            self.b = Siamese(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x, y), y)

    model = Twice().eval()
    fused = qfx.fuse_fx(model, example_inputs=IMAGES)
    assert norms(fused) == 0
    torch.testing.assert_close(fused(*IMAGES), model(*IMAGES))


def test_two_norms_are_left() -> None:
    model = Siamese(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), other=nn.BatchNorm2d(4)).eval()
    fused = qfx.fuse_fx(model, example_inputs=IMAGES)
    assert norms(fused) == 2
    torch.testing.assert_close(fused(*IMAGES), model(*IMAGES))


def test_a_norm_along_another_axis_than_the_features_is_left() -> None:
    inputs = (torch.randn(2, 4, 3), torch.randn(2, 4, 3))
    model = Siamese(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    fused = qfx.fuse_fx(model, example_inputs=inputs)
    assert norms(fused) == 2
    torch.testing.assert_close(fused(*inputs), model(*inputs))


class Twice(nn.Module):
    """One layer called twice; what stands behind the second call is told."""

    def __init__(self, layer: nn.Module, relu: nn.Module, second: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.relu, self.second = layer, relu, second or relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.layer(self.relu(self.layer(x))))


@pytest.mark.parametrize("second", [None, nn.ReLU()], ids=["the same relu", "another"])
def test_a_relu_behind_every_call_is_merged(second: nn.Module | None) -> None:
    model, x = Twice(nn.Linear(3, 3), nn.ReLU(), second).eval(), torch.randn(4, 3)
    fused = qfx.fuse_fx(model)
    assert [type(fused.get_submodule(str(n.target))) for n in calls(fused)] == [intrinsic.LinearReLU] * 2
    assert calls(fused)[0].target == calls(fused)[1].target
    torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize("train", [False, True])
def test_merged_calls_are_quantized(train: bool) -> None:
    model, x = Twice(nn.Linear(3, 3), nn.ReLU()).train(train), torch.randn(40, 3)
    mapping = qfx.get_default_qat_qconfig_mapping("x86") if train else qfx.get_default_qconfig_mapping("x86")
    prepared = (qfx.prepare_qat_fx if train else qfx.prepare_fx)(model, mapping, (x,))
    expected = prepared(x)
    int8 = qfx.convert_fx(prepared.eval())
    assert type(int8.layer) is quantized.LinearReLU
    assert len(list(int8.graph.find_nodes(op="call_method", target="dequantize"))) == 1
    assert (int8(x) - expected).abs().max() < 0.1


def test_one_call_without_a_relu_leaves_them_apart() -> None:
    model, x = Twice(nn.Linear(3, 3), nn.ReLU(), nn.Tanh()).eval(), torch.randn(4, 3)
    fused = qfx.fuse_fx(model)
    assert [type(fused.get_submodule(str(n.target))) for n in calls(fused)][::2] == [nn.Linear, nn.Linear]
    torch.testing.assert_close(fused(x), model(x))


class Twins(nn.Module):
    """A layer, its batch norm and its relu, called twice in a row."""

    def __init__(self, layer: nn.Module, norm: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.layer, self.norm, self.relu = layer, norm, nn.ReLU() if relu else nn.Sequential()
        for name, ends in (("running_mean", (-1, 1)), ("running_var", (0.5, 2)), ("weight", (0.5, 2))):
            nn.init.uniform_(getattr(norm, name), *ends)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.layer(self.relu(self.norm(self.layer(x))))))


def test_a_norm_and_a_relu_behind_every_call_are_both_merged() -> None:
    model, x = Twins(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval(), torch.randn(2, 3, 4, 4)
    fused = qfx.fuse_fx(model)
    assert [type(fused.get_submodule(str(n.target))) for n in calls(fused)] == [intrinsic.ConvReLU2d] * 2
    torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize(
    ("layer", "norm", "relu", "expected"),
    [
        (lambda: nn.Conv2d(3, 3, 1), lambda: nn.BatchNorm2d(3), True, intrinsic.qat.ConvBnReLU2d),
        (lambda: nn.Conv2d(3, 3, 1), lambda: nn.BatchNorm2d(3), False, intrinsic.qat.ConvBn2d),
        (lambda: nn.Conv1d(3, 3, 1), lambda: nn.BatchNorm1d(3), True, intrinsic.qat.ConvBnReLU1d),
        (lambda: nn.Linear(3, 3), lambda: nn.BatchNorm1d(3), False, intrinsic.qat.LinearBn1d),
    ],
)
def test_in_training_they_are_collected(layer: Any, norm: Any, relu: bool, expected: type[nn.Module]) -> None:
    model = Twins(layer(), norm(), relu).train()
    kind = type(model.layer)
    x = torch.randn(16, 3, *{nn.Conv2d: (4, 4), nn.Conv1d: (4,), nn.Linear: ()}[kind])
    prepared = qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping("x86"), (x,))
    assert type(prepared.layer) is expected
    assert not hasattr(prepared, "norm")
    prepared.apply(qfx.disable_fake_quant)
    torch.testing.assert_close(prepared(x), model(x))
    torch.testing.assert_close(prepared.layer.bn.running_var, model.norm.running_var)
    prepared.apply(qfx.enable_fake_quant)
    prepared(x)
    prepared.eval()
    int8 = qfx.convert_fx(prepared)
    assert len(list(int8.graph.find_nodes(op="call_method", target="dequantize"))) == 1
    assert (int8(x) - prepared(x)).abs().max() < 0.2


def test_in_training_a_norm_that_normalizes_something_else_too_is_left() -> None:
    class More(Twins):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.norm(x)

    model, x = More(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train(), torch.randn(4, 3, 4, 4)
    prepared = qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping("x86"), (x,))
    assert type(prepared.layer) is qfx.nn.qat.Conv2d
    assert hasattr(prepared, "norm")
