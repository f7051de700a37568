"""Training with simulated quantization in FX mode: the original's losses, and its integers afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

ao = pytest.importorskip("torch.ao.quantization")
ao_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")


class Network(nn.Module):
    """Everything the two libraries observe alike: layers with batch norm and relu, a residual, a pool, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.conv3(F.relu(x + self.bn2(self.conv2(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def losses(model: Any, steps: int = 20) -> list[float]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    found = []
    for _ in range(steps):
        loss = F.cross_entropy(model(torch.randn(8, 3, 12, 12)), torch.randint(0, 10, (8,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("engine", ["fbgemm", "x86", "onednn", "qnnpack"])
def test_losses_and_integers_are_the_originals(engine: str) -> None:
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"torch was built without {engine}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        torch.manual_seed(1)
        model, x = Network().train(), torch.randn(8, 3, 12, 12)
        mine = qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping(engine), (x,))
        theirs = ao_fx.prepare_qat_fx(model, ao.get_default_qat_qconfig_mapping(engine), (x,))
        torch.testing.assert_close(losses(mine), losses(theirs), rtol=0, atol=1e-5)
        again = torch.randn(8, 3, 12, 12)
        assert torch.equal(qfx.convert_fx(mine.eval())(again), ao_fx.convert_fx(theirs.eval())(again))
    finally:
        torch.backends.quantized.engine = before
