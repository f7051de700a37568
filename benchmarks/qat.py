"""Training with simulated quantization: a step of a prepared ResNet-18 against its float step, and torch.ao's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import qfx
from benchmarks.harness import Row, interleaved_medians


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al., arXiv:1512.03385, figure 5 left)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.down = nn.Identity()
        if stride != 1 or into != out:
            self.down = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.down(x))


def resnet18(classes: int = 1000) -> nn.Module:
    """ResNet-18 (table 1 of the same paper)."""
    widths = (64, 64, 128, 256, 512)
    blocks = [
        Block(widths[stage] if number == 0 else widths[stage + 1], widths[stage + 1], 2 if stage and not number else 1)
        for stage in range(4)
        for number in range(2)
    ]
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)).train()


def _step(model: Any, x: torch.Tensor, target: torch.Tensor) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def rows() -> list[Row]:
    torch.manual_seed(0)
    model, x, target = resnet18(), torch.randn(8, 3, 96, 96), torch.randint(0, 1000, (8,))
    mine = qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping("x86"), (x,))
    steps = {"float": _step(model, x, target), "qfx": _step(mine, x, target)}
    try:
        import torch.ao.quantization as ao
        from torch.ao.quantization.quantize_fx import prepare_qat_fx

        theirs = prepare_qat_fx(model, ao.get_default_qat_qconfig_mapping("x86"), (x,))
        steps["torch.ao"] = _step(theirs, x, target)
    except ImportError:
        pass
    seconds = interleaved_medians(steps, rounds=10)
    ratio = {name: value / seconds["float"] for name, value in seconds.items()}
    note = f"(torch.ao: {ratio['torch.ao']:.2f}x)" if "torch.ao" in ratio else ""
    return [
        Row("training step of a prepared ResNet-18 against float, (8, 3, 96, 96)", ratio["qfx"], 1.5, "max", note=note)
    ]
