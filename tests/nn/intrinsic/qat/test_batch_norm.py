"""Fused modules for training: what they compute, freeze, and become."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx import config
from qfx.errors import ConfigError
from qfx.nn import intrinsic as nni
from qfx.nn.errors import ModuleTypeError

nniqat = nni.qat
QCONFIG = config.get_default_qat_qconfig("x86")
INPUTS = {0: (5, 4), 1: (3, 4, 9), 2: (2, 4, 6, 6), 3: (2, 4, 5, 5, 5)}
WITH_BN = ["ConvBn1d", "ConvBn2d", "ConvBn3d", "ConvBnReLU1d", "ConvBnReLU2d", "ConvBnReLU3d", "LinearBn1d"]
WITHOUT = ["ConvReLU1d", "ConvReLU2d", "ConvReLU3d", "LinearReLU"]


def dims(name: str) -> int:
    return 0 if "Linear" in name else int(name[-2])


def fused(name: str, *, bias: bool = True) -> Any:
    n = dims(name)
    parts: list[nn.Module] = [getattr(nn, f"Conv{n}d")(4, 6, 3, bias=bias) if n else nn.Linear(4, 6, bias=bias)]
    if "Bn" in name:
        bn = getattr(nn, f"BatchNorm{max(n, 1)}d")(6)
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
        nn.init.uniform_(bn.weight, 0.5, 1.5)
        nn.init.normal_(bn.bias)
        parts.append(bn)
    if "ReLU" in name:
        parts.append(nn.ReLU())
    made = getattr(nni, name)(*parts)
    made.qconfig = QCONFIG
    return made


def x(name: str) -> torch.Tensor:
    return torch.randn(INPUTS[dims(name)])


def unrounded(module: Any) -> Any:
    module.weight_fake_quant.disable_fake_quant()
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
@pytest.mark.parametrize("training", [True, False])
def test_without_rounding_it_is_the_float_container(name: str, training: bool, bias: bool) -> None:
    original = fused(name, bias=bias).train(training)
    made = unrounded(getattr(nniqat, name).from_float(copy.deepcopy(original)))
    data = x(name)
    torch.testing.assert_close(made(data), original(data))
    if "Bn" in name:
        torch.testing.assert_close(made.bn.running_mean, original[1].running_mean)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", WITH_BN)
def test_the_slow_path_is_the_float_container_with_scales_next_to_zero_too(name: str, bias: bool) -> None:
    original = fused(name, bias=bias)
    with torch.no_grad():
        original[1].weight[0] = 0
    quick, made = (unrounded(getattr(nniqat, name).from_float(copy.deepcopy(original))) for _ in range(2))
    data = x(name)
    assert not quick(data).isfinite().all()  # it divides by the scale
    made._enable_slow_path_for_better_numerical_stability = True
    torch.testing.assert_close(made(data), original(data))


@pytest.mark.parametrize("name", WITH_BN)
def test_a_state_of_version_1_has_the_batch_norm_beside_the_weight(name: str) -> None:
    made, other, data = *(getattr(nniqat, name).from_float(fused(name)).eval() for _ in range(2)), x(name)
    old = {"bn.weight": "gamma", "bn.bias": "beta"}
    state = {old.get(key, key.removeprefix("bn.")): value for key, value in made.state_dict().items()}
    other.load_state_dict(state, strict=True)
    assert torch.equal(other.bn.running_var, made.bn.running_var)
    assert torch.equal(other(data), made(data))


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_reset(bias: bool) -> None:
    made = nniqat.ConvBn2d.from_float(fused("ConvBn2d", bias=bias))
    made.reset_bn_parameters()
    bn = made.bn
    assert (bn.running_mean.abs().sum(), bn.running_var.prod(), bn.bias.abs().sum()) == (0, 1, 0)
    assert ((bn.weight >= 0) & (bn.weight <= 1)).all()
    assert made.bias is None if not bias else made.bias.abs().max() <= 1 / 6  # 4 channels, 3 by 3


@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
def test_frozen_training_sees_what_the_folded_weight_computes(name: str) -> None:
    made = getattr(nniqat, name).from_float(fused(name)).eval()
    folded, data = made.to_float(), x(name)
    weighted = folded[0] if isinstance(folded, nn.Sequential) else folded
    weighted.weight.data = made.weight_fake_quant(weighted.weight.detach()).detach()
    torch.testing.assert_close(made(data), folded(data), rtol=1e-4, atol=1e-5)
    assert type(folded).__name__ == name.replace("Bn", "").replace("Linear1d", "Linear") or type(weighted) in (
        nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear
    )  # fmt: skip


@pytest.mark.parametrize("name", WITH_BN)
def test_statistics_move_until_they_are_frozen(name: str) -> None:
    model = nn.Sequential(getattr(nniqat, name).from_float(fused(name)))
    before = model[0].bn.running_mean.clone()
    model(x(name))
    assert not torch.equal(model[0].bn.running_mean, before)
    model.apply(nniqat.freeze_bn_stats)
    model.train()
    assert not model[0].bn.training
    before = model[0].bn.running_mean.clone()
    model(x(name))
    assert torch.equal(model[0].bn.running_mean, before)
    model.apply(nniqat.update_bn_stats)
    model(x(name))
    assert not torch.equal(model[0].bn.running_mean, before)


@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
def test_parameters_are_the_containers_own_and_get_gradients(name: str) -> None:
    original = fused(name)
    made = getattr(nniqat, name).from_float(original)
    assert made.weight is original[0].weight
    made(x(name)).sum().backward()
    assert original[0].weight.grad is not None


@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
def test_the_wrong_module_or_no_configuration_is_refused(name: str) -> None:
    cls, original = getattr(nniqat, name), fused(name)
    with pytest.raises(ModuleTypeError, match=rf"qat.{name}.from_float only works for {name}, got Tanh"):
        cls.from_float(nn.Tanh())
    del original.qconfig
    with pytest.raises(ModuleTypeError, match="Input float module must have qconfig defined"):
        cls.from_float(original)
    with pytest.raises(ConfigError, match="qconfig must be provided for QAT module"):
        cls(4, 6, 3) if dims(name) else cls(4, 6)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
def test_copies_and_states(name: str) -> None:
    made, data = getattr(nniqat, name).from_float(fused(name)), x(name)
    made(data)
    made.eval().apply(qfx.disable_observer)  # else every call moves the averages on
    other = getattr(nniqat, name).from_float(fused(name)).eval()
    other.load_state_dict(made.state_dict(), strict=True)
    for each in (other, copy.deepcopy(made)):
        assert torch.equal(each(data), made(data))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [*WITH_BN, *WITHOUT])
def test_it_scripts(name: str, training: bool, bias: bool) -> None:
    made = getattr(nniqat, name).from_float(fused(name, bias=bias)).train(training)
    scripted, data = torch.jit.script(copy.deepcopy(made)), x(name)
    torch.testing.assert_close(scripted(data), made(data))
    assert all(torch.equal(scripted.state_dict()[key], value) for key, value in made.state_dict().items())
