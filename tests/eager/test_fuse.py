"""Fusion: what becomes of modules, of their hooks, and of modules that stand in several places."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import qfx
from qfx.config.backend_config import MatchAllNode
from qfx.eager import private_names
from qfx.errors import ConfigError
from qfx.nn import intrinsic
from qfx.nn.errors import ModuleTypeError

CONVS = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def randomized(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


def sequence(dims: int, *, relu: bool) -> nn.Sequential:
    conv, bn = CONVS[dims]
    parts = [conv(2, 4, 1), bn(4), nn.ReLU()]
    return randomized(nn.Sequential(*parts[: 3 if relu else 2]))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_evaluation(dims: int, relu: bool) -> None:
    model = sequence(dims, relu=relu).eval()
    fused = qfx.fuse_modules(model, [str(i) for i in range(len(model))])
    x = torch.randn(3, 2, *[4] * dims)
    torch.testing.assert_close(fused(x), model(x))
    assert type(fused[0]) is (getattr(intrinsic, f"ConvReLU{dims}d") if relu else CONVS[dims][0])
    assert all(type(module) is nn.Identity and not module.training for module in fused[1:])
    assert type(model[1]) is CONVS[dims][1]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_training(dims: int, relu: bool) -> None:
    model = sequence(dims, relu=relu).train()
    fused = qfx.fuse_modules_qat(model, [str(i) for i in range(len(model))])
    x = torch.randn(3, 2, *[4] * dims)
    assert torch.equal(fused(x), model(x))
    assert type(fused[0]) is getattr(intrinsic, f"ConvBn{'ReLU' if relu else ''}{dims}d")
    assert fused[1].training
    torch.testing.assert_close(fused[0][1].running_mean, model[1].running_mean)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed(dims: int, groups: int) -> None:
    model = randomized(nn.Sequential(TRANSPOSED[dims](4, 6, 2, groups=groups), CONVS[dims][1](6))).eval()
    fused = qfx.fuse_modules(model, ["0", "1"])
    x = torch.randn(3, 4, *[4] * dims)
    torch.testing.assert_close(fused(x), model(x))
    with pytest.raises(NotImplementedError, match="not yet supported in QAT"):
        qfx.fuse_modules_qat(model, ["0", "1"])


def test_linear() -> None:
    model = randomized(nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6))).eval()
    fused = qfx.fuse_modules(model, ["0", "1"])
    x = torch.randn(3, 4)
    torch.testing.assert_close(fused(x), model(x))
    assert type(fused[0]) is nn.Linear
    trained = qfx.fuse_modules_qat(model.train(), ["0", "1"])
    assert type(trained[0]) is intrinsic.LinearBn1d


@pytest.mark.parametrize(
    ("first", "container"),
    [
        (nn.Linear(3, 3), intrinsic.LinearReLU),
        (nn.Conv1d(3, 3, 1), intrinsic.ConvReLU1d),
        (nn.Conv3d(3, 3, 1), intrinsic.ConvReLU3d),
        (nn.BatchNorm2d(3), intrinsic.BNReLU2d),
        (nn.BatchNorm3d(3), intrinsic.BNReLU3d),
    ],
)
def test_pairs(first: nn.Module, container: type) -> None:
    for fuse in (qfx.fuse_modules, qfx.fuse_modules_qat):
        fused = fuse(nn.Sequential(first, nn.ReLU()), ["0", "1"])
        assert type(fused[0]) is container


def test_a_parametrized_weight_is_folded() -> None:
    model = randomized(nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 4, 1)), nn.BatchNorm2d(4))).eval()
    fused = qfx.fuse_modules(model, ["0", "1"])
    x = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(fused(x), model(x))
    assert {name for name, _ in fused.named_parameters()} == {"0.bias", "0.weight"}


def test_frozen_parameters_stay_frozen() -> None:
    model = sequence(2, relu=False).eval()
    model[0].weight.requires_grad_(False)
    fused = qfx.fuse_modules(model, ["0", "1"])
    assert not fused[0].weight.requires_grad
    assert fused[0].bias.requires_grad


def counting(model: nn.Module) -> dict[str, list[type]]:
    seen: dict[str, list[type]] = {"pre": [], "post": []}
    model[0].register_forward_pre_hook(lambda module, args: seen["pre"].append(type(module)))
    model[-1].register_forward_hook(lambda module, args, result: seen["post"].append(type(module)))
    return seen


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_hooks_of_both_ends_run_once(relu: bool, training: bool) -> None:
    """The original copies them with the convolution and registers them again, and so calls them twice."""
    model = sequence(2, relu=relu).train(training)
    seen = counting(model)
    fuse = qfx.fuse_modules_qat if training else qfx.fuse_modules
    fuse(model, [str(i) for i in range(len(model))], inplace=True)
    model(torch.randn(3, 2, 4, 4))
    assert seen == {"pre": [type(model[0])], "post": [type(model[0])]}


def test_hooks_stay_where_fusion_fails() -> None:
    model = sequence(2, relu=True).train()
    seen = counting(model)
    with pytest.raises(AssertionError, match=r"Fusion only for eval!.*fuse_modules_qat") as caught:
        qfx.fuse_modules(model, ["0", "1", "2"], inplace=True)
    assert caught.value.__notes__ == ["at 0 + 1 + 2 (Conv2d)"]
    model(torch.randn(3, 2, 4, 4))
    assert seen == {"pre": [nn.Conv2d], "post": [nn.ReLU]}


class Shared(nn.Module):
    """One relu behind two convolutions, and one convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()
        self.conv2, self.again, self.bn2 = nn.Conv2d(2, 2, 1), self.conv1, nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.conv2(x)) + self.bn2(self.again(x))


def test_a_shared_relu() -> None:
    model = randomized(Shared()).eval()
    seen: list[torch.Size] = []
    model.relu.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    fused = qfx.fuse_modules(model, [["conv1", "bn1", "relu"], ["conv2", "relu"]])
    x = torch.randn(3, 2, 4, 4)
    expected, calls = model(x), len(seen)
    torch.testing.assert_close(fused(x), expected)
    assert type(fused.conv2) is intrinsic.ConvReLU2d
    assert type(fused.relu) is nn.Identity
    assert len(seen) == 2 * calls


def test_a_shared_convolution_is_replaced_where_it_was_named() -> None:
    model = randomized(Shared()).eval()
    fused = qfx.fuse_modules(model, ["again", "bn2"])
    x = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(fused(x), model(x))
    assert torch.equal(fused.conv1.weight, model.conv1.weight)
    with pytest.raises(ConfigError, match="'again' is in two of the lists to fuse"):
        qfx.fuse_modules(model, [["conv1", "bn1"], ["again", "bn2"]])


def test_a_table_and_a_function_of_ones_own() -> None:
    def keep_conv(is_qat: bool, conv: nn.Module, relu: nn.Module) -> nn.Module:
        return conv

    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6()).eval()
    custom = {"additional_fuser_method_mapping": {(nn.Conv2d, nn.ReLU6): keep_conv}}
    fused = qfx.fuse_modules(model, ["0", "1"], fuse_custom_config_dict=custom)
    assert [type(module) for module in fused] == [nn.Conv2d, nn.Identity]

    def first(modules: list[Any], is_qat: bool, additional: Any) -> list[Any]:
        return [modules[0], nn.Tanh()]

    assert type(qfx.fuse_modules(model, ["0", "1"], fuser_func=first)[1]) is nn.Tanh


def test_what_does_not_go_together() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU6(), nn.BatchNorm2d(2)).eval()
    with pytest.raises(AssertionError, match="did not find fuser method for") as caught:
        qfx.fuse_modules(model, ["0", "1"])
    assert caught.value.__notes__ == ["at 0 + 1 (Conv2d)"]
    with pytest.raises(AttributeError, match=r"the model has no module 'body.7'"):
        qfx.fuse_modules(model, ["0", "body.7"])
    with pytest.raises(ConfigError, match="one list of paths or a list of such lists"):
        qfx.fuse_modules(model, [["0", "2"], "1"])
    mixed = copy.deepcopy(model)
    mixed[2].train()
    with pytest.raises(AssertionError, match="both must be in the same mode"):
        qfx.fuse_modules(mixed, ["0", "2"])


@pytest.mark.parametrize(
    ("bn", "why"),
    [
        (nn.BatchNorm2d(3), "must match num_features of BatchNorm2d: 2 and 3"),
        (nn.BatchNorm2d(2, affine=False), "with affine set to True"),
        (nn.BatchNorm2d(2, track_running_stats=False), "with tracking_running_stats set to True"),
    ],
)
def test_batch_norms_that_cannot_be_trained(bn: nn.Module, why: str) -> None:
    conv = nn.Conv2d(2, 2, 1)
    for fuse in (lambda: qfx.fuse_conv_bn(True, conv, bn), lambda: qfx.fuse_conv_bn_relu(True, conv, bn, nn.ReLU())):
        with pytest.raises(AssertionError, match=why):
            fuse()


def test_classes_without_a_container() -> None:
    conv, bn, relu = nn.ConvTranspose2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()
    for is_qat, mode in ((True, "train"), (False, "eval")):
        for module in (conv, bn, relu):
            module.train(is_qat)
        with pytest.raises(NotImplementedError, match=f"Cannot fuse {mode} modules"):
            qfx.fuse_conv_bn_relu(is_qat, conv, bn, relu)
    with pytest.raises(ModuleTypeError, match="Incorrect types for input modules"):
        qfx.fuse_linear_bn(True, nn.Linear(2, 2), nn.BatchNorm2d(2))


def test_methods_by_pattern() -> None:
    particular, general = object(), object()
    table: dict[Any, Any] = {(nn.ReLU, (torch.add, MatchAllNode)): general}
    assert qfx.get_fuser_method_new((nn.ReLU, (torch.add, nn.Conv2d)), table) is general
    table[nn.ReLU, (torch.add, nn.Conv2d)] = particular
    assert qfx.get_fuser_method_new((nn.ReLU, (torch.add, nn.Conv2d)), table) is particular
    with pytest.raises(AssertionError, match="did not find fuser method for"):
        qfx.get_fuser_method_new((nn.ReLU, nn.Conv2d), table)
    assert private_names._get_valid_patterns((nn.ReLU, nn.Conv2d)) == [
        (nn.ReLU, nn.Conv2d),
        (nn.ReLU, MatchAllNode),
        (MatchAllNode, nn.Conv2d),
        (MatchAllNode, MatchAllNode),
    ]


def test_private_names_are_other_names() -> None:
    assert all(hasattr(private_names, name) for name in private_names.__all__)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
    private_names._fuse_modules_helper(model, ["0.0", "0.1"], False)
    assert type(private_names._get_module(model, "0.0")) is intrinsic.ConvReLU2d
    private_names._set_module(model, "0.1", nn.Tanh())
    assert type(model[0][1]) is nn.Tanh
    fused = private_names._fuse_modules(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), ["0", "1"], is_qat=True)
    assert type(fused[0]) is intrinsic.LinearReLU
