"""Modules for training compute with the weight their integers will have, and are the float module otherwise."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from qfx import config
from qfx.errors import ConfigError
from qfx.nn import qat
from qfx.nn.errors import ModuleTypeError

QCONFIG = config.get_default_qat_qconfig("x86")
CASES: dict[str, tuple[Any, nn.Module, tuple[Any, ...]]] = {
    "Linear": (qat.Linear, nn.Linear(6, 4), (torch.randn(3, 6),)),
    "Conv1d": (qat.Conv1d, nn.Conv1d(3, 4, 3, padding=1, bias=False), (torch.randn(2, 3, 9),)),
    "Conv2d": (qat.Conv2d, nn.Conv2d(4, 4, 3, groups=2, padding=1, padding_mode="reflect"), (torch.randn(2, 4, 6, 6),)),
    "Conv3d": (qat.Conv3d, nn.Conv3d(2, 4, 2, stride=2, dilation=1), (torch.randn(1, 2, 5, 5, 5),)),
    "Embedding": (qat.Embedding, nn.Embedding(7, 4, padding_idx=2), (torch.tensor([1, 2, 6]),)),
    "EmbeddingBag": (
        qat.EmbeddingBag,
        nn.EmbeddingBag(7, 4, mode="sum"),
        (torch.tensor([1, 2, 6, 3]), torch.tensor([0, 3])),
    ),
}


def configured(name: str) -> nn.Module:
    module = copy.deepcopy(CASES[name][1])
    module.qconfig = config.default_embedding_qat_qconfig if "Embedding" in name else QCONFIG
    return module


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_float_module_with_a_rounded_weight(name: str) -> None:
    cls, _, inputs = CASES[name]
    module = configured(name)
    made = cls.from_float(module)
    assert isinstance(made, type(module))
    assert made.weight is module.weight  # one parameter: an optimizer made before keeps working
    assert made.qconfig is module.qconfig
    rounded = copy.deepcopy(module)
    rounded.weight.data = made.weight_fake_quant(module.weight).detach()
    assert torch.equal(made(*inputs), rounded(*inputs))
    made(*inputs).sum().backward()
    assert module.weight.grad is not None


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [True, False])
def test_and_becomes_the_float_module_again(name: str, training: bool) -> None:
    cls, _, inputs = CASES[name]
    module = configured(name).train(training)
    back = cls.from_float(module).to_float()
    assert type(back) is type(module)
    assert back.training == training
    assert not hasattr(back, "weight_fake_quant")
    assert repr(back) == repr(module)
    assert torch.equal(back(*inputs), module(*inputs))


@pytest.mark.parametrize("name", CASES)
def test_the_state_goes_round(name: str) -> None:
    cls, _, inputs = CASES[name]
    made = cls.from_float(configured(name))
    made(*inputs)
    other = cls.from_float(configured(name))
    other.load_state_dict(made.state_dict(), strict=True)
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    for each in (other, copy.deepcopy(made), torch.load(file, weights_only=False)):
        assert torch.equal(each(*inputs), made(*inputs))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_scripts(name: str) -> None:
    cls, _, inputs = CASES[name]
    made = cls.from_float(configured(name))
    assert torch.equal(torch.jit.script(copy.deepcopy(made))(*inputs), made(*inputs))


def test_a_parametrization_stays() -> None:
    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    module = nn.Linear(3, 4)
    parametrize.register_parametrization(module, "weight", Doubled())
    module.qconfig = QCONFIG
    made = qat.Linear.from_float(module)
    assert parametrize.is_parametrized(made, "weight")
    assert torch.equal(made.weight, module.weight)
    made(torch.randn(2, 3))


def test_constructors_need_a_configuration_that_suits() -> None:
    with pytest.raises(ConfigError, match="qconfig must be provided for QAT module Linear"):
        qat.Linear(2, 2)
    with pytest.raises(ConfigError, match="qconfig must be provided for QAT module Conv2d"):
        qat.Conv2d(2, 2, 1)
    for table in (qat.Embedding, qat.EmbeddingBag):
        with pytest.raises(
            ConfigError, match=r"requires a qscheme of torch.per_channel_affine_float_qparams; got torch.per_ch"
        ):
            table(3, 2, qconfig=QCONFIG)
    with pytest.raises(ConfigError, match=r"memoryless observer.*averaging constant equal to 1"):
        qat.dynamic.Linear(2, 2, qconfig=QCONFIG)
    made = qat.dynamic.Linear(2, 2, qconfig=config.default_dynamic_qat_qconfig)
    assert made(torch.randn(1, 2)).shape == (1, 2)


def test_from_float_takes_its_float_class_with_a_configuration() -> None:
    with pytest.raises(ModuleTypeError, match=r"qat.Linear.from_float only works for Linear, got Conv1d"):
        qat.Linear.from_float(nn.Conv1d(1, 1, 1))
    with pytest.raises(ModuleTypeError, match="Input float module must have"):
        qat.Linear.from_float(nn.Linear(2, 2))
