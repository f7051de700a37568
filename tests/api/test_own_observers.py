"""A user's observer need be no more than the original asks of one: a dtype and ``calculate_qparams``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

X = torch.randn(4, 8, 6, 6)


class Peak(qfx.UniformQuantizationObserverBase):
    """Buffers of its own, none of ours."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.register_buffer("peak", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.peak = torch.maximum(self.peak, x.detach().abs().max())
        return x

    def calculate_qparams(self) -> Any:
        return self._calculate_qparams(-self.peak, self.peak)


class Minimal(qfx.ObserverBase):
    """A dtype and parameters as plain numbers: no scheme, no codes."""

    zero_point = 128

    def __init__(self, dtype: torch.dtype = torch.quint8) -> None:
        super().__init__(dtype)
        self.peak = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.peak = max(self.peak, float(x.detach().abs().max()))
        return x

    def calculate_qparams(self) -> Any:
        return self.peak / 127, self.zero_point


class MinimalWeight(Minimal):
    zero_point = 0

    def __init__(self) -> None:
        super().__init__(torch.qint8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.w = nn.Conv2d(8, 8, 3), nn.Parameter(torch.randn(4, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.max_pool2d(F.relu(self.conv(x)), 2), self.w)


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
@pytest.mark.parametrize("weight", [qfx.default_weight_observer, MinimalWeight])
@pytest.mark.parametrize("activation", [Peak, Minimal])
def test_a_users_observer_is_converted(activation: Any, weight: Any, target: str) -> None:
    mapping = qfx.QConfigMapping().set_global(qfx.QConfig(activation=activation, weight=weight))
    model = Net().eval()
    prepared = qfx.prepare_fx(model, mapping, (X,))
    prepared(X)
    gm, expected = qfx.convert_fx(prepared, target=target), model(X)
    noise = (gm(X) - expected).pow(2).sum() / expected.pow(2).sum()
    assert float(noise.detach()) < 2e-3
    assert len(gm.plan.get("kernels", range(3))) == 3
    assert not gm.plan["problems"]


def test_it_says_what_its_base_noted() -> None:
    observer = Peak()
    assert observer.problems() == []
    observer._note(torch.ones(2, dtype=torch.int64))
    observer._note_odd(torch.tensor([float("nan")]))
    assert observer.problems() == ["saw NaN", "saw integers, which it took as floats"]
