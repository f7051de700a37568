"""Weights of 4 bits on scikit-learn's digits: training with rounded weights, against the best of qfx's solvers.

Weights have the codes -8..7, one scale a channel, in int8 storage. Activations have the codes 0..127.

Run: python examples/05_digits_4_bits.py [--seeds 5]
"""

from __future__ import annotations

import argparse
import copy
import importlib
import statistics

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

import qfx
from qfx.observers import SOLVERS, solve

digits = importlib.import_module("02_digits")
WEIGHT = {"dtype": torch.qint8, "qscheme": torch.per_channel_symmetric, "quant_min": -8, "quant_max": 7}
ACTIVATION = {"dtype": torch.quint8, "quant_min": 0, "quant_max": 127}
BY_SOLVER = [name for name in SOLVERS if name != "moving_average"]  # an average needs many weights


class Activation(qfx.HistogramObserver):
    """A histogram that a solver of choice turns into a scale."""

    def __init__(self, solver: str) -> None:
        super().__init__(**ACTIVATION)
        self.solver = solver

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        found = solve(self.statistics(), self.solver, **ACTIVATION)
        return torch.as_tensor(found.scale).reshape(1), torch.as_tensor(found.zero_point).reshape(1)


class Weight(qfx.PerChannelMinMaxObserver):
    """A histogram of every channel, each solved on its own."""

    def __init__(self, solver: str) -> None:
        super().__init__(**WEIGHT)
        self.solver = solver

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.scales = torch.tensor([self.scale_of(channel) for channel in weight.detach()])
        return super().forward(weight)

    def scale_of(self, channel: torch.Tensor) -> float:
        observer = qfx.HistogramObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
        observer(channel)
        how = WEIGHT | {"qscheme": torch.per_tensor_symmetric}
        return float(solve(observer.statistics(), self.solver, **how).scale)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.scales, torch.zeros(len(self.scales), dtype=torch.int64)


def calibrated(model: nn.Module, x: torch.Tensor, solver: str) -> nn.Module:
    """The model in integers after calibration, scales by one solver."""
    qconfig = qfx.QConfig(Activation.with_args(solver=solver), Weight.with_args(solver=solver))
    prepared = qfx.prepare_fx(model, qfx.QConfigMapping().set_global(qconfig), (x[:1],))
    with torch.no_grad():
        for batch in x[:512].split(64):
            prepared(batch)
    return qfx.convert_fx(prepared)


def trained(model: nn.Module, x: torch.Tensor, labels: torch.Tensor, epochs: int = 12) -> nn.Module:
    """The model in integers after a few epochs with rounded weights and activations."""
    qconfig = qfx.QConfig(
        qfx.FakeQuantize.with_args(observer=qfx.MovingAverageMinMaxObserver, **ACTIVATION),
        qfx.FakeQuantize.with_args(
            observer=qfx.MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, **WEIGHT
        ),
    )
    prepared = qfx.prepare_qat_fx(copy.deepcopy(model).train(), qfx.QConfigMapping().set_global(qconfig), (x[:1],))
    optimizer = torch.optim.Adam(prepared.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(prepared(x[part]), labels[part]).backward()
            optimizer.step()
        schedule.step()
    return qfx.convert_fx(prepared.eval())


def largest_code(model: nn.Module) -> int:
    """The largest distance from zero among the int8 codes of all weights."""
    weights = [m.weight() for m in model.modules() if hasattr(m, "set_weight_bias")]
    return max(int(w.int_repr().to(torch.int32).abs().max()) for w in weights)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    train_x, test_x, train_y, test_y = digits.data()
    found: dict[str, list[float]] = {}
    codes = 0
    seeds = parser.parse_args().seeds
    for seed in range(seeds):
        model = digits.trained(train_x, train_y, seed=seed)
        models = {"float": model} | {f"calibrated, {how}": calibrated(model, train_x, how) for how in BY_SOLVER}
        models["trained"] = trained(model, train_x, train_y)
        codes = max(codes, *(largest_code(m) for name, m in models.items() if name != "float"))
        for name, each in models.items():
            found.setdefault(name, []).append(digits.accuracy(each, test_x, test_y))
    table = Table("model", "test accuracy", "worst seed", title=f"Digits with weights of 4 bits: mean of {seeds} seeds")
    for name, values in found.items():
        table.add_row(name, f"{statistics.mean(values):.2%}", f"{min(values):.2%}")
    Console().print(table)
    print(f"largest weight code: {codes}")


if __name__ == "__main__":
    main()
