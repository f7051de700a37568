"""The demo network on every integer target: accuracy, latency, calibration cost, that nothing stays float."""

from __future__ import annotations

import torch

import qfx
from benchmarks import protocol
from benchmarks.harness import Row, interleaved_medians
from qfx.api.convert import TARGETS


def rows() -> list[Row]:
    model, held = protocol.pretrained_efficientnet(), protocol.held_out_crops()
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (held[:1],))
    batches = protocol.calibration_batches()
    with torch.no_grad():
        calibration = interleaved_medians(
            {"float": lambda: model(batches[0]), "observed": lambda: prepared(batches[0])}, rounds=7
        )
        for batch in batches:
            prepared(batch)
        expected = protocol.logits(model, held)
    ratio = calibration["observed"] / calibration["float"]
    found = [Row("calibrating EfficientNet-Lite0, 16 pictures / float eager", ratio, 1.5, "max")]
    best = protocol.best_float(model)
    for target in TARGETS:
        if target != "reference":
            found += _target(target, prepared, model, best, held, expected)
    return found


def _target(
    target: str,
    prepared: qfx.ObservedGraphModule,
    model: torch.nn.Module,
    best: torch.nn.Module,
    held: torch.Tensor,
    expected: torch.Tensor,
) -> list[Row]:
    int8 = qfx.convert_fx(prepared, target=target)
    found = protocol.logits(int8, held)
    counted = qfx.summary(int8)
    x = held[:1].clone(memory_format=torch.contiguous_format)
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = interleaved_medians(
            {"float": lambda: model(x), "best": lambda: best(last), "int8": lambda: int8(last)}, rounds=31
        )
    ms = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items())
    return [
        Row(f"{target}: held-out crops", protocol.decibels(expected, found), 16, "min", "dB"),
        Row(f"{target}: top-1 as float", 100 * protocol.top1_agreement(expected, found), 80, "min", "%"),
        Row(f"{target}: nodes in integers", 100 * counted.coverage_nodes, 100, "min", "%"),
        Row(f"{target}: trips between floats and integers", counted.nodes["boundary"], 2, "max", "nodes"),
        Row(f"{target}: int8 / float eager", seconds["int8"] / seconds["float"], 0.6, "max", "x", f"({ms})"),
        Row(f"{target}: int8 / best float", seconds["int8"] / seconds["best"], 1.0, "max"),
    ]
