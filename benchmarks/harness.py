"""Rows with a bound, medians of interleaved runs, and the machine they were measured on."""

from __future__ import annotations

import importlib
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Row:
    """One measured claim: `value` must be at most ("max") or at least ("min") `bound`."""

    name: str
    value: float
    bound: float
    better: Literal["min", "max"]
    unit: str = "x"
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.value <= self.bound if self.better == "max" else self.value >= self.bound


def measured(name: str) -> list[Row]:
    """The rows of one benchmark module; none where it is a helper."""
    warnings.simplefilter("ignore")  # torch's own deprecations would hide the table
    module = importlib.import_module(f"benchmarks.{name}")
    return module.rows() if hasattr(module, "rows") else []


def interleaved_medians(functions: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each function; rounds interleave, so a noisy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """One line on what this ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
        flags = next((line for line in lines if line.startswith("flags")), "")
        model += ", VNNI" if "vnni" in flags else ", no VNNI"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, {capability}"


def show(rows: list[Row]) -> bool:
    """Print the rows; whether all hold."""
    table = Table("claim", "bound", "measured", "", title=Text(machine()))  # names and notes are text, no markup
    for row in rows:
        sign = "<=" if row.better == "max" else ">="
        bound, value = f"{sign} {row.bound:g} {row.unit}", f"{row.value:.3g} {row.unit}"
        verdict = Text("PASS", "green") if row.ok else Text("FAIL", "red")
        table.add_row(*map(Text, (f"{row.name} {row.note}".strip(), bound, value)), verdict)
    Console(width=140).print(table)
    return all(row.ok for row in rows)
