"""Views: of a convolution's result they must be reshapes, of a linear layer's they stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx


class Viewed(nn.Module):
    def __init__(self, layer: nn.Module, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.relu, self.after = layer, nn.ReLU6(), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.after(self.layer(x))
        return self.relu(y).view(y.shape[0] * 2, -1)


LINEAR, CONV = (lambda: nn.Linear(16, 8), (5, 16)), (lambda: nn.Conv2d(4, 8, 3), (2, 4, 6, 6))


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("after", [lambda y: y, F.relu, lambda y: y.clamp(max=0.5)])
@pytest.mark.parametrize(("made", "method"), [(LINEAR, "view"), (CONV, "reshape")])
def test_views(made: Any, method: str, after: Callable[..., Any], target: str) -> None:
    layer, shape = made
    x = torch.randn(shape)
    prepared = qfx.prepare_fx(Viewed(layer(), after).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    reference, int8 = qfx.convert_to_reference_fx(prepared), qfx.convert_fx(prepared, target=target)
    assert [node.target for node in int8.graph.nodes if node.target in ("view", "reshape")] == [method]
    expected = reference(x)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(int8(x), expected, rtol=0, atol=0.05)
