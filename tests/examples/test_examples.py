"""Every example runs, and says what its text promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> str:
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, env=environment, timeout=600, check=False
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


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert [p.name for p in EXAMPLES.glob("*.py") if p.name not in text] == []
