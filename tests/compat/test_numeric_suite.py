"""PyTorch's own numeric suite, which it may stop to ship, compares models of qfx."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

SUITE = """
import copy, warnings
warnings.simplefilter("ignore")
import qfx.compat
qfx.compat.install()
import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
import torch.ao.ns._numeric_suite_fx as ns
from torch.ao.ns.fx.utils import compute_sqnr

model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
x = torch.randn(2, 3, 8, 8)
prepared = prepare_fx(model.eval(), get_default_qconfig_mapping("fbgemm"), (x,))
prepared(x)
int8 = convert_fx(copy.deepcopy(prepared))
weights = ns.extract_weights("float", copy.deepcopy(prepared), "int8", copy.deepcopy(int8))
loggers = ns.add_loggers("float", copy.deepcopy(prepared), "int8", copy.deepcopy(int8), ns.OutputLogger)
for each in loggers:
    each(x)
outputs = ns.extract_logger_info(*loggers, ns.OutputLogger, "int8")
shadowed = ns.add_shadow_loggers("float", copy.deepcopy(prepared), "int8", copy.deepcopy(int8), ns.OutputLogger)
shadowed(x)
shadows = ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "int8")
for found, kind in ((weights, "weight"), (outputs, "node_output"), (shadows, "node_output")):
    ns.extend_logger_results_with_comparison(found, "float", "int8", compute_sqnr, "sqnr")
    layers = {result[kind]["int8"][0]["fqn"]: float(result[kind]["int8"][0]["sqnr"][0]) for result in found.values()}
    print({"0", "2", "4"} <= set(layers), all(each > 20 for each in layers.values()))
"""


@pytest.mark.skipif(importlib.util.find_spec("torch.ao.ns") is None, reason="this PyTorch ships it no more")
def test_the_suite_compares_weights_outputs_and_shadows() -> None:
    done = subprocess.run([sys.executable, "-c", SUITE], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-3:] == ["True True"] * 3, done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("torch.ao.ns") is None, reason="this PyTorch ships it no more")
def test_what_was_loaded_while_installed_is_not_there_afterwards() -> None:
    code = """
import warnings
warnings.simplefilter("ignore")
import qfx.compat
qfx.compat.install()
import torch.ao.ns._numeric_suite as bound
assert bound.prepare is qfx.prepare
qfx.compat.uninstall()
import torch.ao.ns._numeric_suite as free
import torch.ao.quantization
assert free is not bound
print(free.prepare is torch.ao.quantization.prepare)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "True\n", done.stderr
