"""Why a node of a final graph is float: every node of a pattern that was not lowered says what its last op says."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.report.entries import entries

X = torch.randn(2, 4, 8, 8)


class Calls(nn.Module):
    def __init__(self, body: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body, self.conv, self.bn = body, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.w = nn.Parameter(torch.randn(4, 4, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def reasons(model: nn.Module, target: str) -> dict[str, str]:
    prepared = qfx.prepare_fx(model.eval(), qfx.get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 operators that were to be quantized stay float", UserWarning)
        gm = qfx.convert_fx(prepared, target=target)
    return {e.node: "; ".join(e.reasons) for e in entries(gm) if e.status == "float"}


@pytest.mark.parametrize(
    ("body", "target", "inner", "reason"),
    [
        (
            lambda m, x: F.relu6(F.conv2d(x, m.w * 2)),
            "native",
            "conv2d",
            "its weight is computed (mul), and kernels take a constant",
        ),
        (lambda m, x: F.relu6(m.bn(x)), "onednn", "bn", "found ops.batch_norm at bn"),
        (
            lambda m, x: torch.cat(m.conv(x).chunk(2, 1)[:2], 1),
            "native",
            "chunk",
            "the target has no integer kernel for chunk",
        ),
    ],
)
def test_an_inner_node_gives_the_reason_of_its_anchor(
    body: Callable[[nn.Module, torch.Tensor], torch.Tensor], target: str, inner: str, reason: str
) -> None:
    found = reasons(Calls(body), target)
    assert reason in found[inner]
    assert not any("to be quantized" in said for said in found.values())


def test_a_reference_graph_is_no_final_one() -> None:
    found = reasons(Calls(lambda m, x: m.conv(x)), "reference")
    assert found == {"conv": "to be quantized: a reference or prepared graph computes in float"}
