"""The helpers of PyTorch's own tests of quantization run on qfx: they compare classes of modules with the old names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUITE = """
import unittest

import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
import torch.ao.nn.quantized.reference as nnqr
from torch import nn
from torch.ao.quantization import (
    QuantType, convert, default_dynamic_qconfig, get_default_qconfig_mapping, prepare, quantize_dynamic,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.testing._internal.common_quantization import (
    AnnotatedSingleLayerLinearModel, NodeSpec as ns, QuantizationTestCase, SingleLayerLinearDynamicModel,
    test_only_eval_fn as evaluate,
)


class TestOldNames(QuantizationTestCase):
    def test_nodes_of_a_graph(self):
        x = torch.randn(2, 3, 6, 6)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
        prepared = prepare_fx(model, get_default_qconfig_mapping("fbgemm"), (x,))
        prepared(x)
        graph = convert_fx(prepared)
        steps = [ns.call_function(torch.quantize_per_tensor), ns.call_module(nniq.ConvReLU2d),
                 ns.call_module(nnq.Linear), ns.call_method("dequantize")]
        self.checkGraphModuleNodes(graph, expected_node_list=steps)
        self.checkGraphModuleNodes(graph, expected_node_occurrence={step: 1 for step in steps})
        with self.assertRaises(AssertionError):
            self.checkGraphModuleNodes(graph, expected_node=ns.call_module(nnq.Conv3d))
        with self.assertRaises(AssertionError):
            self.checkGraphModuleNodes(graph, expected_node_list=steps[::-1])

    def test_modules_of_eager_mode(self):
        prepared = prepare(AnnotatedSingleLayerLinearModel("fbgemm"))
        self.checkHasPrepModules(prepared.fc1)
        self.checkObservers(prepared)
        evaluate(prepared, self.calib_data)
        quantized = convert(prepared)
        self.checkWrappedQuantizedLinear(quantized.fc1)
        self.checkNoPrepModules(quantized)
        self.checkScriptable(quantized, self.calib_data)

    def test_dynamic(self):
        quantized = quantize_dynamic(SingleLayerLinearDynamicModel().eval(), {nn.Linear: default_dynamic_qconfig})
        self.checkDynamicQuantizedLinear(quantized.fc1, torch.qint8)

    def test_every_kind_of_graph(self):
        x = torch.randn(2, 5)
        layers = {QuantType.STATIC: nnq.Linear, QuantType.DYNAMIC: nnqd.Linear, QuantType.QAT: nnq.Linear}
        for kind, layer in layers.items():
            self.checkGraphModeFxOp(nn.Sequential(nn.Linear(5, 5)), (x,), kind, expected_node=ns.call_module(layer))
        reference = ns.call_module(nnqr.Linear)
        self.checkGraphModeFxOp(nn.Sequential(nn.Linear(5, 5)), (x,), QuantType.STATIC, reference, is_reference=True)


unittest.main()
"""


def test_the_test_case_of_pytorch_passes_on_qfx(tmp_path: Path) -> None:
    script = tmp_path / "suite.py"
    script.write_text(SUITE)
    command = [sys.executable, "-m", "qfx.compat", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr
    assert "skipped" not in done.stderr


def test_importing_the_helpers_warns_of_nothing() -> None:
    code = """
import qfx.compat
qfx.compat.install()
from torch.testing._internal.common_quantization import nnq, prepare_fx
print(prepare_fx.__module__, nnq.Linear.__module__)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["qfx.api.prepare", "qfx.nn.quantized.linear"], done.stderr
