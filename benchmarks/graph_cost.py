"""Graph cost: prepare_fx and convert_fx on long chains, against torch.ao where it can be imported."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

import qfx
from benchmarks.harness import Row


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(width, width), nn.Linear(width, width), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.a(self.relu(self.b(x))))


def chain(nodes: int, width: int = 8) -> nn.Module:
    """``x = relu(x + linear(relu(linear(x))))`` until the graph has about that many nodes, five a block."""
    return nn.Sequential(*(Block(width) for _ in range(nodes // 5))).eval()


def min_max_mapping(library: Any) -> Any:
    observer = library.MinMaxObserver.with_args(quant_min=0, quant_max=127)
    return library.QConfigMapping().set_global(library.QConfig(observer, library.default_weight_observer))


def cost(library: Any, prepare: Any, convert: Any, nodes: int, *, default: bool) -> float:
    """Seconds of prepare and convert together; calibration (one small batch) is not counted."""
    model, x = chain(nodes), torch.randn(4, 8)
    mapping = library.get_default_qconfig_mapping("x86") if default else min_max_mapping(library)
    start = time.perf_counter()
    prepared = prepare(model, mapping, (x,))
    seconds = time.perf_counter() - start
    with torch.no_grad():
        prepared(x)
    start = time.perf_counter()
    convert(prepared)
    return seconds + time.perf_counter() - start


def ours(nodes: int, *, default: bool, rounds: int = 3) -> float:
    return min(cost(qfx, qfx.prepare_fx, qfx.convert_fx, nodes, default=default) for _ in range(rounds))


def interleaved(nodes: int, theirs: Any, *, default: bool, rounds: int) -> tuple[float, float]:
    """Seconds of qfx and of torch.ao: the best of some rounds of each, in turn."""
    mine, others = [], []
    for _ in range(rounds):
        mine.append(ours(nodes, default=default, rounds=2))
        others.append(cost(*theirs, nodes, default=default))
    return min(mine), min(others)


def growth(small: int, large: int, rounds: int = 3) -> tuple[float, float]:
    """Seconds per node of a short and of a long chain: medians of rounds that run both, one after the other."""
    ours(50, default=False, rounds=1)
    measured = [tuple(ours(nodes, default=False, rounds=1) / nodes for nodes in (small, large)) for _ in range(rounds)]
    few, many = map(statistics.median, zip(*measured, strict=True))
    return few, many


def rows() -> list[Row]:
    ratios = against_the_original()  # first: 20,000 nodes leave a heap that suits neither
    small, large = growth(1_000, 20_000)
    name = "prepare and convert, time per node, 20,000 nodes against 1,000"
    return [*ratios, Row(name, large / small, 1.5, "max", note=f"({small * 1e6:.0f} us at 1,000)")]


def against_the_original() -> list[Row]:
    """qfx and torch.ao on the same chains; nothing where torch.ao is gone."""
    found: list[Row] = []
    try:
        import torch.ao.quantization as ao
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
    except ImportError:
        return found
    cost(ao, prepare_fx, convert_fx, 50, default=False)  # what it loads and works out once, we do not count
    for nodes, default, bound, rounds in ((500, False, 5, 6), (2_000, False, 10, 3), (500, True, 40, 3)):
        mine, theirs = interleaved(nodes, (ao, prepare_fx, convert_fx), default=default, rounds=rounds)
        kind = "default mapping" if default else "min-max"
        note = f"({mine:.2f} s against {theirs:.1f} s)"
        found.append(
            Row(f"prepare and convert, {nodes} nodes, {kind}, torch.ao / qfx", theirs / mine, bound, "min", "x", note)
        )
    return found
