"""Quantization of TorchScript modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import ConfigError, KernelError
from qfx.jit import compiled

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated.*:DeprecationWarning")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(x.mean([2, 3]))  # type: ignore[no-any-return]


def _script() -> Any:
    return torch.jit.script(Small().eval())


def _calibrate(model: Any, data: torch.Tensor) -> None:
    with torch.no_grad():
        model(data)


def test_static_quantization_gives_quantized_kernels_and_close_numbers() -> None:
    script, x = _script(), torch.randn(8, 3, 8, 8)
    made = qfx.quantize_jit(script, {"": qfx.get_default_qconfig("x86")}, _calibrate, [x])
    code = str(made.inlined_graph)
    assert "quantized::conv2d_relu" in code
    assert "quantized::linear" in code
    assert "batch_norm" not in code
    error = (made(x) - script(x)).pow(2).mean() / script(x).pow(2).mean()
    assert error < 1e-3
    assert "quantized::" not in str(script.inlined_graph)


def test_a_part_left_float_stays_float() -> None:
    x = torch.randn(8, 3, 8, 8)
    made = qfx.quantize_jit(_script(), {"": qfx.get_default_qconfig("x86"), "fc": None}, _calibrate, [x])
    code = str(made.inlined_graph)
    assert "quantized::conv2d_relu" in code
    assert "quantized::linear" not in code


def test_dynamic_quantization_needs_no_data() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval())
    made = qfx.quantize_dynamic_jit(script, {"": qfx.default_dynamic_qconfig})
    assert "quantized::linear_dynamic" in str(made.inlined_graph)
    x = torch.randn(3, 4)
    assert torch.allclose(made(x), script(x), atol=0.05)


def test_debug_keeps_quantize_and_dequantize() -> None:
    x = torch.randn(8, 3, 8, 8)
    prepared = qfx.prepare_jit(_script(), {"": qfx.get_default_qconfig("x86")})
    prepared(x)
    code = str(qfx.convert_jit(prepared, debug=True).inlined_graph)
    assert "aten::quantize_per_tensor" in code
    assert "quantized::conv2d" not in code


def test_in_place_changes_the_module_itself() -> None:
    script = _script()
    prepared = qfx.prepare_jit(script, {"": qfx.get_default_qconfig("x86")}, inplace=True)
    assert prepared is script
    prepared(torch.randn(8, 3, 8, 8))
    assert qfx.convert_jit(prepared, inplace=True) is script


def test_folding_leaves_no_batch_norm() -> None:
    script, x = _script(), torch.randn(2, 3, 8, 8)
    fused = qfx.fuse_conv_bn_jit(script)
    assert "batch_norm" not in str(torch.jit.freeze(fused).inlined_graph)
    assert torch.allclose(fused(x), script(x), atol=1e-5)


def test_scripted_configurations_are_compiled_observers() -> None:
    found = qfx.script_qconfig_dict({"": qfx.default_qconfig, "fc": None})
    assert found["fc"] is None
    assert isinstance(found[""].activation, torch._C.ScriptModule)


@pytest.mark.parametrize("prepare", [qfx.prepare_jit, qfx.prepare_dynamic_jit])
def test_what_is_no_script_module_is_refused(prepare: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"be a script module, got: .*Small.*; make one for \w+ by torch\.jit\.script"
    ):
        prepare(Small().eval(), {"": qfx.default_qconfig})


def test_a_key_that_is_no_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="should only contain names"):
        qfx.prepare_jit(_script(), {nn.Linear: qfx.default_qconfig})


def test_a_build_without_the_passes_says_so() -> None:
    with pytest.raises(KernelError, match="lacks _jit_pass_nowhere, which quantizes TorchScript; use"):
        compiled.compiled_pass("_jit_pass_nowhere")


def test_a_prepared_dynamic_script_converts() -> None:
    script, x = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()), torch.randn(2, 4)
    made = qfx.convert_dynamic_jit(qfx.prepare_dynamic_jit(script, {"": qfx.default_dynamic_qconfig}))
    assert "linear_dynamic" in str(made.inlined_graph)
    torch.testing.assert_close(made(x), script(x), rtol=0.1, atol=0.1)


def test_a_qconfig_is_made_of_scripted_observers() -> None:
    scripted = qfx.script_qconfig(qfx.default_qconfig)
    assert all(isinstance(each, torch.ScriptObject) for each in scripted)
    assert qfx.script_qconfig_dict({"": qfx.default_qconfig, "fc": None})["fc"] is None


@pytest.mark.parametrize(
    "make",
    [
        qfx.MinMaxObserver,
        qfx.MovingAverageMinMaxObserver,
        qfx.PerChannelMinMaxObserver,
        qfx.MovingAveragePerChannelMinMaxObserver,
        qfx.HistogramObserver,
        qfx.default_fixed_qparams_range_0to1_observer,
        qfx.default_fixed_qparams_range_neg1to1_observer,
        qfx.default_float_qparams_observer,
        qfx.FakeQuantize,
        qfx.FusedMovingAvgObsFakeQuantize,
        qfx.default_fixed_qparams_range_0to1_fake_quant,
    ],
)
def test_a_compiled_observer_sees_what_an_eager_one_sees(make: Any) -> None:
    eager = make()
    script = torch.jit.script(make())
    for factor in (1.0, 3.0, 0.5):
        x = factor * torch.randn(4, 3, 5)
        torch.testing.assert_close(script(x), eager(x), rtol=0, atol=0)
    for ours, scripted in zip(eager.calculate_qparams(), script.calculate_qparams(), strict=True):
        assert torch.equal(ours, scripted)


@pytest.mark.parametrize(
    "make", [qfx.PlaceholderObserver, qfx.NoopObserver, qfx.ReuseInputObserver, qfx.RecordingObserver]
)
def test_a_compiled_observer_without_a_range_passes_tensors_through(make: Any) -> None:
    script, x = torch.jit.script(make()), torch.randn(2, 3)
    assert torch.equal(script(x), x)
    with pytest.raises(torch.jit.Error, match="ObservationError"):
        script.calculate_qparams()


@pytest.mark.parametrize(("given", "lacks"), [((None, [1]), "function"), ((lambda model, x: None, None), "dataset")])
def test_nothing_to_calibrate_with_is_refused(given: Any, lacks: str) -> None:
    with pytest.raises(AssertionError, match=f"Must provide calibration {lacks}"):
        qfx.quantize_jit(_script(), {"": qfx.default_qconfig}, *given)
