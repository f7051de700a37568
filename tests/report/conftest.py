"""What tests of counting need: layers between quantized values, calibrated models, torch's own count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import qfx


class _Between(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Hardswish(), layer, nn.Hardswish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(self.first(x)))


@pytest.fixture
def between() -> Callable[[nn.Module], nn.Module]:
    """A model of a layer between two activations that are quantized: ``first``, ``layer``, ``last``."""
    return _Between


@pytest.fixture
def calibrated() -> Callable[..., qfx.ObservedGraphModule]:
    """A model prepared, with the default mapping if none is given, and run once."""

    def make(model: nn.Module, *inputs: torch.Tensor, mapping: Any = None, **more: Any) -> qfx.ObservedGraphModule:
        if not isinstance(model, torch.fx.GraphModule):  # an exported one has no eval(), and was exported in it
            model.eval()
        prepared = qfx.prepare_fx(model, mapping or qfx.get_default_qconfig_mapping("x86"), inputs, **more)
        prepared(*inputs)
        return prepared

    return make


@pytest.fixture
def macs() -> Callable[[Any], dict[str, int | None]]:
    """The nodes of a graph module that multiply, and how much."""
    return lambda gm: {entry.node: entry.macs for entry in qfx.explain(gm) if entry.macs != 0}


@pytest.fixture
def torchs_count() -> Callable[..., int]:
    """Multiply-accumulates of a float model for one sample by torch's flop counter, which counts two for each and all
    samples."""

    def count(model: nn.Module, x: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            model(x)
        total, rest = divmod(counter.get_total_flops(), 2 * len(x))
        assert rest == 0
        return total

    return count
