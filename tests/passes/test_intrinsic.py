from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx.capture import capture
from qfx.nn import intrinsic
from qfx.passes import Context, Pass, run_steps
from qfx.passes.fuse.batch_norm import FOLD_BATCH_NORM
from qfx.passes.fuse.intrinsic import FUSE_RELU
from qfx.passes.normalize import NORMALIZE
from qfx.passes.pipeline import RuleLog

STEPS = (*NORMALIZE, Pass("fold", FOLD_BATCH_NORM), Pass("fuse", FUSE_RELU, keep_misses=True))


def fused(model: nn.Module) -> tuple[torch.fx.GraphModule, RuleLog]:
    gm = capture(model.eval())
    context = Context.of(gm)
    run_steps(gm, STEPS, context)
    return gm, context.logs[-1].rules["fuse_relu"]


def called(gm: torch.fx.GraphModule) -> list[tuple[str, type]]:
    return [(str(n.target), type(gm.get_submodule(str(n.target)))) for n in gm.graph.nodes if n.op == "call_module"]


class Calls(nn.Module):
    """A module, then relu in one of its spellings."""

    def __init__(self, layer: nn.Module, relu: str) -> None:
        super().__init__()
        self.layer, self.relu, self.how = layer, nn.ReLU(inplace=relu == "inplace"), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.how == "function":
            return F.relu(y)
        return y.relu() if self.how == "method" else self.relu(y)


LAYERS = {
    intrinsic.ConvReLU1d: (lambda: nn.Conv1d(3, 4, 3), (2, 3, 8)),
    intrinsic.ConvReLU2d: (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
    intrinsic.ConvReLU3d: (lambda: nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5)),
    intrinsic.LinearReLU: (lambda: nn.Linear(3, 4), (2, 3)),
    intrinsic.BNReLU2d: (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4)),
    intrinsic.BNReLU3d: (lambda: nn.BatchNorm3d(3), (2, 3, 4, 4, 4)),
}


@pytest.mark.parametrize("relu", ["module", "inplace", "function", "method"])
@pytest.mark.parametrize("cls", LAYERS)
def test_a_module_and_its_relu_become_one(cls: type, relu: str) -> None:
    make, shape = LAYERS[cls]
    model, x = Calls(make(), relu).eval(), torch.randn(shape)
    gm, log = fused(model)
    assert called(gm) == [("layer", cls)]
    assert log.applied == 1
    assert torch.equal(gm(x), model(x))
    assert "relu" not in dict(gm.named_children())


def test_batch_norm_is_folded_first() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    gm, _ = fused(model)
    assert called(gm) == [("0", intrinsic.ConvReLU2d)]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(gm(x), model(x))


class Escapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return F.relu(y) + y


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.fc(F.relu(self.fc(x))))


class Function(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.linear(x, self.w))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Escapes, "fc is also used by add, outside the match"),
        (Reused, "module fc is called 2 times"),
        (Function, "linear is a function, not a module"),
    ],
)
def test_what_is_left_alone_and_why(model: type[nn.Module], why: str) -> None:
    original = model().eval()
    gm, log = fused(original)
    assert log.applied == 0
    assert all(why in miss for miss in log.misses.values())
    assert log.misses
    x = torch.randn(2, 3)
    assert torch.equal(gm(x), original(x))
