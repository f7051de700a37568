from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx.nn.stubs import DeQuantStub, QuantStub, QuantWrapper


@pytest.mark.parametrize("kind", [QuantStub, DeQuantStub])
def test_stubs_do_nothing_and_may_carry_a_configuration(kind: type[nn.Module]) -> None:
    x = torch.randn(3)
    assert kind()(x) is x
    assert not hasattr(kind(), "qconfig")
    assert not hasattr(kind(None), "qconfig")
    assert kind(qfx.default_qconfig).qconfig is qfx.default_qconfig


def test_the_wrapper_takes_mode_and_configuration() -> None:
    layer = nn.Linear(4, 2).eval()
    layer.qconfig = qfx.default_qconfig
    wrapped = QuantWrapper(layer)
    assert not wrapped.training
    assert not wrapped.quant.training
    assert wrapped.quant.qconfig is wrapped.dequant.qconfig is qfx.default_qconfig
    x = torch.randn(3, 4)
    assert torch.equal(wrapped(x), layer(x))
    assert [name for name, _ in wrapped.named_children()] == ["quant", "dequant", "module"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_the_wrapper_scripts_before_and_after_conversion() -> None:
    wrapped = QuantWrapper(nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    assert torch.equal(torch.jit.script(wrapped)(x), wrapped(x))
    wrapped.qconfig = qfx.default_qconfig
    prepared = qfx.prepare(wrapped)
    prepared(x)
    converted = qfx.convert(prepared)
    assert torch.equal(torch.jit.script(converted)(x), converted(x))
