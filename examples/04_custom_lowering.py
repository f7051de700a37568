"""Write your own lowering rule: an integer kernel for SiLU, which no target has.

SiLU is a function of one value, so on 8-bit codes it is a table of 256 entries. Three steps: tell the backend config
that SiLU can be quantized, say what quantized SiLU looks like in a graph, and build what stands there instead.

Run: python examples/04_custom_lowering.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

import qfx
from qfx import ops
from qfx.kernels import onednn


@qfx.pattern
def quantized_silu(x: Any, x_scale: Any, x_zero_point: Any, scale: Any, zero_point: Any) -> Any:
    """On the onednn target integers are plain tensors, so dequantize has their scale and zero point as arguments."""
    return ops.quantize(ops.silu(ops.dequantize(x, x_scale, x_zero_point)), scale, zero_point)


@qfx.rule(quantized_silu)
def silu_by_table(m: Any, g: qfx.Rewriter) -> Any:
    """Work the table out once, here; at run time there is one lookup."""
    table = onednn.table_of(F.silu, m.x_scale.tensor, m.x_zero_point.tensor, m.scale.tensor, m.zero_point.tensor)
    return g.integer(g.call(onednn.lookup, m.x, g.attribute("silu_table", table)), "table of silu")


def backend_with_silu() -> qfx.BackendConfig:
    """The default backend config, and SiLU as a module and as a function."""
    backend = qfx.get_default_backend_config()
    for spelling in (nn.SiLU, F.silu):
        backend.set_backend_pattern_config(
            qfx.BackendPatternConfig(spelling)
            .set_observation_type(qfx.ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT)
            .add_dtype_config(qfx.DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8))
        )
    return backend


class Net(nn.Module):
    """Two convolutions, SiLU as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.second(self.act(self.first(x))))


def main() -> None:
    console = Console()
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(8, 3, 16, 16)
    mapping = qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx(model, mapping, (x,), backend_config=backend_with_silu())
    prepared(x)
    own = qfx.Pass("my kernels", (silu_by_table,))
    for title, passes in (("without the rule", None), ("with the rule", {"lower": [own]})):
        int8 = qfx.convert_fx(prepared, target="onednn", passes=passes)
        noise = (int8(x) - model(x)).square().sum()
        decibels = 10 * torch.log10(model(x).square().sum() / noise).item()
        counted = qfx.summary(int8)
        console.rule(title)
        console.print(qfx.explain(int8))
        console.print(f"{title}: {100 * counted.coverage_nodes:.0f}% of nodes in integers, {decibels:.1f} dB")


if __name__ == "__main__":
    main()
