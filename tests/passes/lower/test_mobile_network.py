"""A small network like EfficientNet-Lite is integer between one quantize and one dequantize, and explain shows it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx


class Convolution(nn.Module):
    """Padded by hand where it strides, as networks ported from TensorFlow are; batch norm, relu6 or nothing."""

    def __init__(
        self, into: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, clamp: bool = True
    ) -> None:
        super().__init__()
        self.pad = (0, kernel - 2, 0, kernel - 2) if stride > 1 else None
        self.conv = nn.Conv2d(into, out, kernel, stride, 0 if self.pad else kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.clamp = nn.ReLU6(inplace=True) if clamp else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.clamp(self.norm(self.conv(F.pad(x, self.pad) if self.pad else x)))


class Block(nn.Module):
    """Expand, depthwise, project; the input is added where it has the shape of the result."""

    def __init__(self, into: int, out: int, *, kernel: int = 3, stride: int = 1, expand: int = 4) -> None:
        super().__init__()
        wide = into * expand
        self.expand = Convolution(into, wide, 1) if expand > 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Convolution(wide, out, 1, clamp=False)
        self.residual = into == out and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 8, 3, stride=2)
        self.blocks = nn.Sequential(
            Block(8, 8, expand=1),
            Block(8, 16, stride=2),
            Block(16, 16),
            Block(16, 24, kernel=5, stride=2),
            Block(24, 24),
        )
        self.head = Convolution(24, 64, 1)
        self.pool, self.dropout, self.classes = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.head(self.blocks(self.stem(x))))
        return self.classes(self.dropout(x.flatten(1)))


LAYERS = [name for name, module in Mobile().named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
X = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    """With statistics of its own in every batch norm, so that folding them matters."""
    made = Mobile().train()
    with torch.no_grad():
        for _ in range(4):
            made(X + 0.1 * torch.randn_like(X))
    return made.eval()


@pytest.mark.parametrize("capture", ["symbolic_trace", "export"])
@pytest.mark.parametrize("target", ["native", "onednn"])
def test_all_is_integer_between_one_quantize_and_one_dequantize(model: nn.Module, target: str, capture: str) -> None:
    given = torch.export.export(model, (X,)).module(check_guards=False) if capture == "export" else model
    prepared = qfx.prepare_fx(given, qfx.get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    int8 = qfx.convert_fx(prepared, target=target, strict=True)
    found = qfx.explain(int8)

    computing = [entry for entry in found if entry.status not in ("input", "output")]
    statuses = [entry.status for entry in computing]
    assert statuses == ["boundary", *["integer"] * (len(statuses) - 2), "boundary"]
    assert (computing[0].op, computing[-1].op) == ("quantize", "dequantize")

    layers = [entry for entry in computing if entry.macs]
    assert [("conv2d" in entry.kernel, "linear" in entry.kernel) for entry in layers] == [
        *[(True, False)] * (len(LAYERS) - 1),
        (False, True),
    ]
    if capture == "symbolic_trace":
        by_layer = {entry.stands_for: entry.kernel for entry in layers}
        for name in LAYERS:
            entry = found[name.replace(".", "_")]
            assert entry.status == "integer"
            assert entry.kernel == by_layer[entry.stands_for]

    counted = qfx.summary(int8)
    assert (counted.coverage_nodes, counted.coverage_macs, counted.unknown_macs) == (1.0, 1.0, 0)
    assert counted.nodes["boundary"] == 2
    assert "float" not in counted.nodes
    signal, noise = model(X).square().sum(), (int8(X) - model(X)).square().sum()
    assert 10 * torch.log10(signal / noise) > 20
