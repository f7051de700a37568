"""A library from the package index runs on qfx, unedited: PyTorch Lightning's quantization-aware training."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "lightning_qat.py"

# As on a PyTorch that has deleted the originals; torch itself imports them, so they go when it is there.
GONE = """
import runpy, sys, torch

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("torch.ao.quantization", "torch.ao.nn", "torch.quantization")):
            raise ModuleNotFoundError(f"No module named {name!r}")

for name in [name for name in sys.modules if name.startswith(("torch.ao", "torch.quantization"))]:
    del sys.modules[name]
for name in ("ao", "quantization"):
    if hasattr(torch, name):
        delattr(torch, name)
sys.meta_path.insert(0, Gone())
if sys.argv[2] == "qfx":
    import qfx.compat
    qfx.compat.install()
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, env=environment, check=False
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    assert found["kinds"] == [
        "qfx.nn.intrinsic.quantized.LinearReLU",
        "torch.nn.modules.linear.Identity",
        "qfx.nn.quantized.linear.Linear",
    ]
    assert found["codes"] == "torch.qint8"
    assert found["loss"] < found["before"] / 2


def test_the_script_runs_on_qfx() -> None:
    check(told(run("-m", "qfx.compat", str(SCRIPT))))


@pytest.mark.skipif(importlib.util.find_spec("torch.ao.quantization") is None, reason="the originals are gone")
def test_it_learns_what_it_learns_on_the_original() -> None:
    theirs, ours = told(run(str(SCRIPT))), told(run("-m", "qfx.compat", str(SCRIPT)))
    assert theirs["kinds"][2] == "torch.ao.nn.quantized.modules.linear.Linear"
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_where_the_originals_are_gone_it_runs_on_qfx_and_on_nothing_else() -> None:
    alone = run("-c", GONE, str(SCRIPT), "nothing")
    assert alone.returncode != 0
    assert "No module named 'torch.ao.quantization" in alone.stderr
    check(told(run("-c", GONE, str(SCRIPT), "qfx")))
