"""``fx._equalize`` under compat."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.compat.private import equalization
from qfx.nn import intrinsic

SCRIPT = """
import torch
from torch import nn
import qfx.compat
qfx.compat.install()
from torch.ao.quantization import MinMaxObserver, QConfig, QConfigMapping
from torch.ao.quantization.fx._equalize import (
    _convert_equalization_ref, _InputEqualizationObserver, _WeightEqualizationObserver, calculate_equalization_scale,
    default_equalization_qconfig, EqualizationQConfig, get_equalization_qconfig_dict,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
qconfig = QConfig(MinMaxObserver, MinMaxObserver.with_args(dtype=torch.qint8))
model, x = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).eval(), torch.randn(8, 4)
config = {"": None, "object_type": [(nn.Linear, default_equalization_qconfig)]}
prepared = prepare_fx(model, {"": qconfig}, (x,), _equalization_config=config)
assert sum(isinstance(m, _InputEqualizationObserver) for m in prepared.modules()) == 2
prepared(x)
torch.testing.assert_close(_convert_equalization_ref(prepared)(x), model(x))
print(type(convert_fx(prepared).get_submodule("0")).__module__)
"""


def test_the_old_names_equalize_a_model() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "qfx.nn.quantized.linear\n", done.stderr


@pytest.mark.parametrize(
    ("module", "supported"),
    [(nn.Linear(2, 2), True), (nn.Conv3d(2, 2, 1), True), (nn.ReLU(), False), (nn.ConvTranspose1d(2, 2, 1), False)],
)
def test_layers_that_can_be_equalized(module: nn.Module, supported: bool) -> None:
    assert equalization.nn_module_supports_equalization(module) is supported
    gm = torch.fx.symbolic_trace(nn.Sequential(module))
    (node,) = gm.graph.find_nodes(op="call_module", target="0")
    assert equalization.node_supports_equalization(node, dict(gm.named_modules())) is supported


def test_functions_and_fused_layers() -> None:
    assert equalization.fused_module_supports_equalization(intrinsic.LinearReLU(nn.Linear(2, 2), nn.ReLU()))
    assert not equalization.fused_module_supports_equalization(nn.Linear(2, 2))
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    assert equalization.node_supports_equalization(graph.call_function(F.linear, (x, x)), {})
    assert not equalization.node_supports_equalization(graph.call_function(F.relu, (x,)), {})


def test_the_layers_hurt_most_are_chosen() -> None:
    mapping = equalization.get_equalization_qconfig_dict({"a": 30.0, "b": 10.0, "c": 20.0}, 2)
    chosen = equalization.default_equalization_qconfig
    assert mapping == {"module_name": [("b", chosen), ("c", chosen)]}
    x = torch.randn(4, 3)
    model = nn.Sequential(OrderedDict(b=nn.Linear(3, 3), a=nn.ReLU())).eval()
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,), _equalization_config=mapping)
    assert any(map(equalization.is_equalization_observer, prepared.modules()))


def test_a_scale_has_the_shape_of_its_axis() -> None:
    assert equalization.reshape_scale(torch.ones(3), 1, torch.ones(2, 3, 4)).shape == (1, 3, 1)
    assert equalization.is_equalization_observer(equalization._InputEqualizationObserver())
    assert not equalization.is_equalization_observer(nn.ReLU())


# PyTorch's own file, which it may stop to ship
REPORT = """
import qfx.compat
qfx.compat.install()
from torch.ao.quantization.fx._model_report import detector, model_report
from qfx.observers.equalization import EqualizationQConfig
assert detector.EqualizationQConfig is EqualizationQConfig
print(model_report.ModelReport.__name__)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("torch.ao.quantization.fx._model_report") is None, reason="this PyTorch ships it no more"
)
def test_the_model_report_of_pytorch_loads() -> None:
    done = subprocess.run([sys.executable, "-c", REPORT], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "ModelReport\n", done.stderr
