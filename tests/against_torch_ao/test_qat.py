"""Training with our modules is training with the original's: the same losses, step by step."""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.nn import intrinsic, qat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ao = pytest.importorskip("torch.ao.quantization")
    theirs = pytest.importorskip("torch.ao.nn.qat")
    theirs_dynamic = pytest.importorskip("torch.ao.nn.qat.dynamic")
    their_float = pytest.importorskip("torch.ao.nn.intrinsic")
    their_fused = pytest.importorskip("torch.ao.nn.intrinsic.qat")


class Net(nn.Module):
    def __init__(self, library: Any, family: Any, float_modules: dict[str, nn.Module]) -> None:
        super().__init__()
        qconfig = library.get_default_qat_qconfig("x86")
        for name, module in copy.deepcopy(float_modules).items():
            module.qconfig = qconfig
            self.add_module(name, getattr(family, type(module).__name__).from_float(module))
        self.seen, self.between = qconfig.activation(), qconfig.activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.between(torch.relu(self.conv(self.seen(x))))
        return self.fc(x.mean([2, 3]))


def losses(net: nn.Module, steps: int = 20) -> list[float]:
    torch.manual_seed(1)
    optimizer, found = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(steps):
        x, y = torch.randn(8, 3, 6, 6), torch.randint(0, 5, (8,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")
def test_loss_curves_are_equal() -> None:
    modules = {"conv": nn.Conv2d(3, 8, 3, padding=1), "fc": nn.Linear(8, 5)}
    mine, original = Net(qfx, qat, modules), Net(ao, theirs, modules)
    torch.testing.assert_close(losses(mine), losses(original), rtol=0, atol=1e-5)
    original.load_state_dict(mine.state_dict(), strict=True)  # and so are the state dicts' layouts


@pytest.mark.parametrize("name", ["Linear", "Conv1d", "Conv2d", "Conv3d", "Embedding", "EmbeddingBag"])
def test_signatures(name: str) -> None:
    def parameters(cls: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(cls.__init__).parameters.values()]

    assert parameters(getattr(qat, name)) == parameters(getattr(theirs, name))
    if name == "Linear":
        assert parameters(qat.dynamic.Linear) == parameters(theirs_dynamic.Linear)


class Fused(nn.Module):
    def __init__(self, library: Any, float_family: Any, family: Any, parts: dict[str, list[nn.Module]]) -> None:
        super().__init__()
        qconfig = library.get_default_qat_qconfig("x86")
        for name, modules in copy.deepcopy(parts).items():
            container = getattr(float_family, name)(*modules)
            container.qconfig = container[0].qconfig = qconfig  # some of the original's look at one, some at the other
            self.add_module(name, getattr(family, name).from_float(container))
        self.seen = qconfig.activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.ConvReLU2d(self.ConvBn2d(self.ConvBnReLU2d(self.seen(x))))
        return self.LinearReLU(self.LinearBn1d(x.mean([2, 3])))


@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_loss_curves_with_batch_norm_are_equal(frozen: bool) -> None:
    parts: dict[str, list[nn.Module]] = {
        "ConvBnReLU2d": [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()],
        "ConvBn2d": [nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)],
        "ConvReLU2d": [nn.Conv2d(8, 8, 1), nn.ReLU()],
        "LinearBn1d": [nn.Linear(8, 8), nn.BatchNorm1d(8)],
        "LinearReLU": [nn.Linear(8, 5), nn.ReLU()],
    }
    mine = Fused(qfx, intrinsic, intrinsic.qat, parts)
    original = Fused(ao, their_float, their_fused, parts)
    if frozen:
        mine.apply(intrinsic.qat.freeze_bn_stats)
        original.apply(their_fused.freeze_bn_stats)
        original.LinearBn1d.freeze_bn_stats()  # which the original's function forgets
    torch.testing.assert_close(losses(mine), losses(original), rtol=0, atol=1e-5)
    original.load_state_dict(mine.state_dict(), strict=True)


@pytest.mark.parametrize("name", [n for n in intrinsic.qat.__all__ if n[0].isupper()])
def test_signatures_of_fused_modules(name: str) -> None:
    def parameters(cls: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(cls.__init__).parameters.values()]

    assert parameters(getattr(intrinsic.qat, name)) == parameters(getattr(their_fused, name))


STATISTICS = [("ConvBn1d", (8,)), ("ConvBn2d", (6, 6)), ("ConvBnReLU2d", (6, 6)), ("ConvBn3d", (4, 4, 4))]


@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning")
@pytest.mark.parametrize(("name", "size"), STATISTICS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_slow_path_is_the_originals(name: str, size: tuple[int, ...], bias: bool, frozen: bool) -> None:
    mine, original = (
        getattr(family, name)(3, 4, 3, bias=bias, freeze_bn=frozen, qconfig=library.get_default_qat_qconfig("x86"))
        for family, library in ((intrinsic.qat, qfx), (their_fused, ao))
    )
    nn.init.uniform_(original.bn.weight, 0.5, 2)
    mine.load_state_dict(original.state_dict(), strict=True)
    for module in (mine, original):
        module._enable_slow_path_for_better_numerical_stability = True
    for _ in range(3):
        x = torch.randn(4, 3, *size)
        y, expected = mine(x), original(x)
        torch.testing.assert_close(y, expected)
        grad = torch.randn_like(y)
        y.backward(grad)
        expected.backward(grad)
    for path in ("weight.grad", "bn.weight.grad", "bn.bias.grad", "bn.running_mean", "bn.running_var"):
        one, other = (operator.attrgetter(path)(module) for module in (mine, original))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # sums over the batch, in another order
    torch.testing.assert_close(mine.eval()(x), original.eval()(x))
