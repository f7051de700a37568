"""Write your own pattern pass: turn ``x * sigmoid(x)``, however it is spelled, into one SiLU.

Run: python examples/03_custom_pattern.py
"""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

import qfx
from qfx import ops


@qfx.pattern
def sigmoid_gate(x: Any) -> Any:
    """The multiplication commutes, so both orders match; sigmoid may be a module, a function or a method."""
    return ops.mul(x, ops.sigmoid(x).named("gate"))


@qfx.rule(sigmoid_gate)
def to_silu(m: Any, g: qfx.Rewriter) -> Any:
    """What is returned takes the place of the multiplication."""
    return g.call(ops.silu, m.x)


class Gated(nn.Module):
    """Three spellings of SiLU, and one look-alike whose sigmoid is also returned."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.fc(x)
        x = x * torch.sigmoid(x)
        x = x.sigmoid() * x
        x = torch.mul(self.sigmoid(x), x)
        gate = torch.sigmoid(x)
        return x * gate, gate


def main() -> None:
    console = Console()
    model, x = Gated().eval(), torch.randn(4, 8)
    table = Table("capture", "nodes before", "after", "applied", "largest difference")
    for name, gm in (
        ("symbolic_trace", torch.fx.symbolic_trace(model)),
        ("torch.export", torch.export.export(model, (x,)).module()),
    ):
        rewritten = qfx.rewrite(gm, [to_silu])
        log = rewritten.meta["qfx_logs"][0].rules["to_silu"]
        difference = (rewritten(x)[0] - model(x)[0]).abs().max().item()
        table.add_row(
            name, str(len(gm.graph.nodes)), str(len(rewritten.graph.nodes)), str(log.applied), f"{difference:.1e}"
        )
        for node, why in log.misses.items():
            # A reason names nodes in brackets, which would be markup to rich if it were not a Text.
            console.print(Text(f"{name}: not at {node}: {why}"))
    console.print(table)


if __name__ == "__main__":
    main()
