"""Random convolutional networks: every target says what the reference graph says, in both memory formats."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

Step = Callable[[torch.Tensor], torch.Tensor]


class Random(nn.Module):
    """Up to seven random layers, then a mean and a linear layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.channels = self.inputs = self.rng.choice([3, 4, 8])
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        for _ in range(self.rng.randint(2, 7)):
            kinds = [name for name in dir(self) if name.startswith("add_a_")]
            self.steps.append(getattr(self, self.rng.choice(kinds))())
        self.head = nn.Linear(self.channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return self.head(x.mean((2, 3)))

    def layer(self, module: nn.Module) -> Any:
        self.layers.append(module)
        return module

    def _conv(self, out: int, **how: Any) -> Any:
        groups = self.rng.choice([1, 1, 2 if self.channels % 2 == out % 2 == 0 else 1])
        kernel = self.rng.choice([1, 3, 5])
        how |= {"stride": self.rng.choice([1, 1, 2]), "padding": self.rng.choice([0, kernel // 2]), "groups": groups}
        made = nn.Conv2d(self.channels, out, kernel, bias=self.rng.random() < 0.7, **how)
        self.channels = out
        return self.layer(made)

    def add_a_convolution(self) -> Step:
        mode = self.rng.choice(["zeros", "zeros", "reflect"])
        return self._conv(self.rng.choice([4, 8, 12]), padding_mode=mode)

    def add_a_convolution_as_a_function(self) -> Step:
        m = self._conv(self.rng.choice([4, 8, 12]), dilation=self.rng.choice([1, 2]))
        return lambda x: F.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)

    def add_a_depthwise_convolution(self) -> Step:
        c = self.channels
        return self.layer(nn.Conv2d(c, c, 3, self.rng.choice([1, 2]), 1, groups=c))

    def add_a_transposed_convolution(self) -> Step:
        before, self.channels = self.channels, self.rng.choice([4, 8])
        return self.layer(nn.ConvTranspose2d(before, self.channels, self.rng.choice([2, 3]), 2))

    def add_a_batch_norm(self) -> Step:
        m = nn.BatchNorm2d(self.channels)
        m.running_mean.normal_(0, 0.3)
        m.running_var.uniform_(0.5, 1.5)
        return self.layer(m)

    def add_a_activation(self) -> Step:
        kinds = (nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.Hardtanh(-0.5, 0.7), nn.Sigmoid())
        more = (nn.LeakyReLU(0.1), nn.Tanh(), nn.ELU(), nn.Hardsigmoid())
        return self.layer(self.rng.choice([*kinds, *more]))

    def add_a_pool(self) -> Step:
        include = self.rng.random() < 0.5
        pools = (nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 1, 1))
        return self.layer(self.rng.choice([*pools, nn.AvgPool2d(3, 1, 1, count_include_pad=include)]))

    def add_a_residual(self) -> Step:
        m, in_place = self.layer(nn.Conv2d(self.channels, self.channels, 3, padding=1)), self.rng.random() < 0.5

        def step(x: torch.Tensor) -> torch.Tensor:
            y = m(x)
            if in_place:
                y += x
            else:
                y = x + y
            return F.relu(y)

        return step

    def add_a_branch(self) -> Step:
        m = self.layer(nn.Conv2d(self.channels, 4, 1))
        self.channels += 4
        return lambda x: torch.cat([x, F.relu(m(x))], 1)

    def add_a_squeeze(self) -> Step:
        m = self.layer(nn.Conv2d(self.channels, self.channels, 1))
        return lambda x: x * torch.sigmoid(m(F.adaptive_avg_pool2d(x, 1)))

    def add_a_number(self) -> Step:
        times, plus = self.rng.choice([2, 0.5, -1.5]), self.rng.choice([1, -0.5])
        return lambda x: plus + x * times

    def add_a_move(self) -> Step:
        moves: list[Step] = [
            lambda x: F.pad(x, (1, 1, 0, 1)),
            lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
            lambda x: F.interpolate(x, scale_factor=2),
            lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
            lambda x: torch.cat([x[:, 2:], x.split([2, x.shape[1] - 2], 1)[0]], 1),
        ]
        return self.rng.choice(moves)


def decibels(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.square().sum() / (expected - found).square().sum().clamp(min=1e-12)))


@pytest.mark.parametrize("seed", range(30))
@torch.no_grad()
def test_targets_agree_with_the_reference_graph(seed: int) -> None:
    torch.manual_seed(seed)
    model = Random(seed).eval()
    x = torch.randn(2, model.inputs, 20, 20)
    expected = model(x)
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    assert torch.allclose(
        prepared(x), expected, rtol=1e-3, atol=1e-4
    )  # observers and folded batch norms change nothing
    reference = decibels(expected, qfx.convert_fx(prepared, target="reference")(x))
    for target in ("native", "onednn"):
        int8 = qfx.convert_fx(prepared, target=target)
        found = int8(x)
        # Rounded sums differ by codes near ties, which layers behind them amplify: a few decibels either way.
        assert decibels(expected, found) > reference - 4
        assert torch.equal(int8(x.contiguous(memory_format=torch.channels_last)), found)
        if target == "native":
            assert qfx.summary(int8).reasons == {}
