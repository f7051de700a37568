"""Every example runs, and says what its text promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("capture", ["symbolic_trace", "torch.export"])
def test_custom_pattern(capture: str) -> None:
    out = run("03_custom_pattern.py")
    (row,) = (line for line in out.splitlines() if line.startswith(f"│ {capture}"))
    applied = row.split("│")[4].strip()
    assert applied == "3"
    assert (
        f"{capture}: not at mul_3: matched 2 of 2 nodes [mul_3, sigmoid_3], then: sigmoid_3 is also used by output"
        in out
    )


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_quantize_efficientnet(target: str) -> None:
    out = run("01_quantize_efficientnet.py", "--crops", "40", "--target", target)
    decibels, agreement = re.search(
        r"40 crops of held-out pictures: ([\d.]+) dB, same top-1 class as float on ([\d.]+)%", out
    ).groups()
    assert float(decibels) > 16
    assert float(agreement) > 80
    assert "100.0% of computing nodes, 100.0% of multiply-accumulates" in out
    assert "outputs identical" in out
    assert out.count("held out") >= 4


def test_digits() -> None:
    out = run("02_digits.py")
    found = {name: float(value) for name, value in re.findall(r"│ ([a-z0-9, ]+?) +│ ([\d.]+)%", out)}
    assert found["float"] > 97
    assert found["int8, native"] > found["float"] - 1
    assert abs(found["int8, native"] - found["int8, reference"]) < 0.5


def test_digits_with_weights_of_4_bits() -> None:
    out = run("05_digits_4_bits.py")
    found = {name: float(value) for name, value in re.findall(r"│ ([a-z0-9_, ]+?) +│ ([\d.]+)%", out)}
    solved = {name: value for name, value in found.items() if name.startswith("calibrated")}
    assert len(solved) == 5
    assert found["trained"] > max(solved.values())
    assert "mean of 5 seeds" in out
    assert "largest weight code: 8\n" in out  # of -8..7: four bits, on all of the models


def test_custom_lowering() -> None:
    out = run("04_custom_lowering.py")
    found = {
        title: (share, decibels)
        for title, share, decibels in re.findall(r"(with\w* the rule): (\d+)% of nodes in integers, ([\d.]+) dB", out)
    }
    assert found["without the rule"][0] == "50"
    assert found["with the rule"][0] == "100"
    assert found["with the rule"][1] == found["without the rule"][1]  # a table is the reference graph, bit for bit
    assert out.count("table of silu by silu_by_table") == 2
    assert "the target has no integer kernel for silu" in out


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert [p.name for p in EXAMPLES.glob("*.py") if p.name not in text] == []
