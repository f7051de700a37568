"""One sample without a batch axis: the float ops take it, most kernels do not, and observers saw which it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

SHAPES = {1: (8, 9), 2: (8, 6, 7), 3: (8, 4, 5, 6)}


class Function(nn.Module):
    def __init__(self, function: Any, *shape: int) -> None:
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.function(x, self.w))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x


MODELS: dict[str, tuple[nn.Module, tuple[int, ...], set[str]]] = {
    **{
        f"{kind}{n}d": (nn.Sequential(getattr(nn, f"{kind}{n}d")(8, 8, 3), nn.ReLU()), SHAPES[n], set())
        for kind in ("Conv", "ConvTranspose")
        for n in (1, 2, 3)
    },
    "conv2d": (Function(F.conv2d, 4, 8, 1, 1), SHAPES[2], set()),
    "Linear": (nn.Sequential(nn.Linear(8, 8)), (8,), {"onednn"}),
    "linear": (Function(F.linear, 32, 8), (8,), {"onednn"}),
    **{
        f"MaxPool{n}d": (nn.Sequential(nn.Sigmoid(), getattr(nn, f"MaxPool{n}d")(2)), SHAPES[n], taken)
        for n, taken in ((1, {"native"}), (2, {"native"}), (3, set()))
    },
    **{
        f"AvgPool{n}d": (nn.Sequential(nn.Sigmoid(), getattr(nn, f"AvgPool{n}d")(2)), SHAPES[n], taken)
        for n, taken in ((1, {"native", "onednn"}), (2, {"native", "onednn"}), (3, {"onednn"}))
    },
    "AdaptiveAvgPool3d": (nn.Sequential(nn.Sigmoid(), nn.AdaptiveAvgPool3d(1)), SHAPES[3], {"native", "onednn"}),
    "residual": (Residual(), SHAPES[2], set()),
}


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sample_alone_runs_and_where_no_kernel_takes_it_the_reason_is_listed(name: str, target: str) -> None:
    model, shape, takers = MODELS[name]
    x = torch.randn(shape)
    prepared = qfx.prepare_fx(model.eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    gm, expected = qfx.convert_fx(prepared, target=target), model(x)
    assert float(((gm(x) - expected).pow(2).sum() / expected.pow(2).sum()).detach()) < 2e-3
    reasons = str(gm.plan["unlowered"])
    if target in takers:
        assert reasons == "{}"
    elif "Transpose" not in name or target == "native":
        assert "the kernels take batches, not samples" in reasons
    else:  # no kernel of the target is of this kind
        assert reasons != "{}"


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("name", [name for name in MODELS if "Transpose" not in name])
def test_a_batch_is_taken(name: str, target: str) -> None:
    model, shape, _ = MODELS[name]
    x = torch.randn(2, *shape)
    prepared = qfx.prepare_fx(model.eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    gm = qfx.convert_fx(prepared, target=target)
    assert not gm.plan["unlowered"]
    gm(x)
