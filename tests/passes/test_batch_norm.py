from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.passes.fuse.batch_norm import FOLD_BATCH_NORM


def randomized(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return model.eval()


def symbolic(model: nn.Module, x: torch.Tensor) -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(model)


def exported(model: nn.Module, x: torch.Tensor) -> torch.fx.GraphModule:
    return torch.export.export(model, (x,)).module()


CAPTURES = pytest.mark.parametrize("captured", [symbolic, exported])
Captured = Callable[[nn.Module, torch.Tensor], torch.fx.GraphModule]


def fold_count(gm: torch.fx.GraphModule) -> int:
    return gm.meta["qfx_logs"][0].rules["fold_batch_norm"].applied


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 4, 1, 1))
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(F.conv2d(x, self.w)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(self.conv(x)))


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.bn(y) + y


CASES = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()), (2, 4, 8, 8)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6)), (2, 4, 5, 5, 5)),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 4, 8, 8)),
    "no affine": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)), (2, 4, 8, 8)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)), (2, 4, 5, 5)),
    "transposed grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, output_padding=1, stride=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (5, 4)),
    "functional": (Functional, (2, 4, 5, 5)),
}


@CAPTURES
@pytest.mark.parametrize("case", CASES)
def test_folds_and_computes_the_same(case: str, captured: Captured) -> None:
    make, shape = CASES[case]
    model, x = randomized(make()), torch.randn(shape)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 1
    assert "batch_norm" not in str(folded.graph)
    # Folding reorders float32 products; 2e-5 is a few units in the last place of sums over 36 terms.
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=2e-5)


@CAPTURES
def test_a_layer_called_twice_is_left_alone(captured: Captured) -> None:
    model, x = randomized(Twice()), torch.randn(2, 4, 5, 5)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "is read 2 times" in reason
    torch.testing.assert_close(folded(x), model(x))


@CAPTURES
def test_a_value_used_elsewhere_is_left_alone(captured: Captured) -> None:
    model, x = randomized(Branch()), torch.randn(2, 4, 5, 5)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "is also used by add, outside the match" in reason


def test_training_mode_is_left_alone() -> None:
    gm = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).train())
    folded = qfx.rewrite(gm, FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "training=True" in reason


def test_the_module_keeps_its_name_and_the_model_is_not_changed() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)))
    gm = torch.fx.symbolic_trace(model)
    folded = qfx.rewrite(gm, FOLD_BATCH_NORM)
    assert [n.target for n in folded.graph.nodes if n.op == "call_module"] == ["0"]
    assert isinstance(folded.get_submodule("0"), nn.Conv2d)
    assert folded.get_submodule("0").bias is not None
    assert model[0].bias is None
    assert dict(folded.named_children()).keys() == {"0"}
