"""qfx stands alone: it runs where torch.ao is gone, and its users see no warning of torch's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
    def forward(self, x):
        x = F.relu6(self.bn(self.conv(x)))
        return self.fc(x.mean([2, 3])) * 2 + F.linear(x.mean([2, 3]), self.fc.weight)
x = torch.randn(4, 3, 8, 8)
"""

CONVERT = """
import sys
import qfx
model = Net().eval()
prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
prepared(x)
for target in ("native", "onednn", "reference"):
    int8 = qfx.convert_fx(prepared, target=target)
    int8(x)
    str(qfx.explain(int8)), str(qfx.summary(int8))
    torch.save((int8, x, int8(x)), f"{sys.argv[1]}/{target}.pt")
torch.save(prepared, f"{sys.argv[1]}/prepared.pt")
print("done")
"""

LOAD = """
import sys
import torch
for target in ("native", "onednn", "reference"):
    int8, x, y = torch.load(f"{sys.argv[1]}/{target}.pt", weights_only=False)
    assert torch.equal(int8(x), y), target
import qfx
qfx.convert_fx(torch.load(f"{sys.argv[1]}/prepared.pt", weights_only=False))(x)
print("done")
"""

# torch imports torch.ao itself, so it can only be taken away afterwards.
WITHOUT_AO = """
import sys
import torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("torch.ao.quantization", "torch.quantization", "torch.ao.nn", "torch.ao.ns")):
            raise ImportError(f"{name} is gone")

for name in [n for n in sys.modules if n.startswith(("torch.ao.quantization", "torch.quantization", "torch.ao.nn"))]:
    del sys.modules[name]
sys.meta_path.insert(0, Refuse())
"""


def run(program: str, folder: Path, *flags: str) -> None:
    script = folder / "script.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, *flags, str(script), str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "done"


def test_no_warning_is_shown_in_fresh_processes(tmp_path: Path) -> None:
    # The model's class must be importable where it is loaded; only the reference of it is in the file.
    run(MODEL + CONVERT, tmp_path, "-W", "error")
    run(LOAD, tmp_path, "-W", "error")


def test_it_runs_where_torch_ao_is_gone(tmp_path: Path) -> None:
    run(WITHOUT_AO + MODEL + CONVERT, tmp_path)
    run(WITHOUT_AO + LOAD, tmp_path)


@pytest.mark.parametrize("name", ["torch.ao.quantization", "torch.ao.nn"])
def test_qfx_does_not_import_it(name: str, tmp_path: Path) -> None:
    program = f"import sys, torch\nbefore = {{n for n in sys.modules if n.startswith({name!r})}}\nimport qfx\n"
    program += (
        f"new = {{n for n in sys.modules if n.startswith({name!r})}} - before\nassert not new, new\nprint('done')"
    )
    run(program, tmp_path)
