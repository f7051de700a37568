"""A layer called several times takes in the batch norm behind it, where every call has the same one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx


class Siamese(nn.Module):
    """Two inputs through one layer and one batch norm; `other` gives the second call a norm of its own."""

    def __init__(self, layer: nn.Module, norm: nn.Module, *, other: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.norm, self.other = layer, norm, other or norm
        for each in (self.norm, self.other):
            nn.init.uniform_(each.running_mean, -1, 1)
            nn.init.uniform_(each.running_var, 0.5, 2)
            nn.init.uniform_(each.weight, 0.5, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)) - self.other(self.layer(y))


def norms(gm: torch.fx.GraphModule) -> int:
    return sum(isinstance(gm.get_submodule(str(n.target)), nn.modules.batchnorm._BatchNorm) for n in calls(gm))


def calls(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return list(gm.graph.find_nodes(op="call_module"))


IMAGES = (torch.randn(2, 3, 6, 6), torch.randn(2, 3, 6, 6))
ROWS = (torch.randn(4, 3), torch.randn(4, 3))
LAYERS = {
    "conv": (lambda: nn.Conv2d(3, 4, 3), lambda: nn.BatchNorm2d(4), IMAGES),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, bias=False), lambda: nn.BatchNorm2d(4), IMAGES),
    "linear": (lambda: nn.Linear(3, 4), lambda: nn.BatchNorm1d(4), ROWS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_norm_behind_every_call_is_folded(name: str) -> None:
    layer, norm, inputs = LAYERS[name]
    model = Siamese(layer(), norm()).eval()
    fused = qfx.fuse_fx(model, example_inputs=inputs)
    assert norms(fused) == 0
    assert len(calls(fused)) == 2
    torch.testing.assert_close(fused(*inputs), model(*inputs))


def test_every_shared_layer_is_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = Siamese(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
            self.b = Siamese(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x, y), y)

    model = Twice().eval()
    fused = qfx.fuse_fx(model, example_inputs=IMAGES)
    assert norms(fused) == 0
    torch.testing.assert_close(fused(*IMAGES), model(*IMAGES))


def test_two_norms_are_left() -> None:
    model = Siamese(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), other=nn.BatchNorm2d(4)).eval()
    fused = qfx.fuse_fx(model, example_inputs=IMAGES)
    assert norms(fused) == 2
    torch.testing.assert_close(fused(*IMAGES), model(*IMAGES))


def test_a_norm_along_another_axis_than_the_features_is_left() -> None:
    inputs = (torch.randn(2, 4, 3), torch.randn(2, 4, 3))
    model = Siamese(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    fused = qfx.fuse_fx(model, example_inputs=inputs)
    assert norms(fused) == 2
    torch.testing.assert_close(fused(*inputs), model(*inputs))
