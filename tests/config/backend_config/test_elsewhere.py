from __future__ import annotations

import operator

import pytest
import torch
from torch import nn
from torch.nn import functional

import qfx
from qfx.config import backend_config as backends
from qfx.config.backend_config import BackendConfig, ObservationType, first_supported


def by_pattern(backend: BackendConfig) -> dict[object, backends.BackendPatternConfig]:
    return {made.pattern: made for made in backend.configs}


@pytest.mark.parametrize("name", ["executorch", "tensorrt", "test_only_legacy_native"])
def test_round_trips(name: str) -> None:
    make = getattr(backends, f"get_{name}_backend_config")
    assert BackendConfig.from_dict(make().to_dict()).to_dict() == make().to_dict()


def test_as_dictionaries() -> None:
    assert qfx.get_tensorrt_backend_config_dict() == qfx.get_tensorrt_backend_config().to_dict()
    legacy = backends.get_test_only_legacy_native_backend_config()
    assert backends.get_test_only_legacy_native_backend_config_dict() == legacy.to_dict()


def test_executorch_prefers_signed_activations() -> None:
    found = by_pattern(qfx.get_executorch_backend_config())
    signed = qfx.default_symmetric_qnnpack_qconfig
    for pattern in (nn.Linear, nn.Conv2d, (operator.sub, nn.ReLU), functional.pad, torch.concat):
        suits, reason = first_supported(signed, found[pattern].dtype_configs, has_weight=None)
        assert reason is None
        assert suits is found[pattern].dtype_configs[0]
    assert found[functional.embedding]._input_type_to_index == {"weight": 1}
    assert nn.Conv1d not in found


def test_tensorrt_takes_signed_codes_only() -> None:
    found = by_pattern(qfx.get_tensorrt_backend_config())
    _, reason = first_supported(qfx.default_qconfig, found[nn.Linear].dtype_configs)
    assert reason == "input: the backend takes torch.qint8, the config asks for torch.quint8"
    assert found[torch.addmm]._input_type_to_index == {"bias": 0, "input": 1, "weight": 2}
    assert found["size"].observation_type is ObservationType.INPUT_OUTPUT_NOT_OBSERVED


def test_the_legacy_config_takes_static_float16() -> None:
    found = by_pattern(backends.get_test_only_legacy_native_backend_config())
    for pattern in (nn.Linear, torch.add, nn.Sigmoid, "reshape"):
        suits, _ = first_supported(qfx.float16_static_qconfig, found[pattern].dtype_configs)
        assert suits is not None, pattern
    suits, _ = first_supported(qfx.float16_static_qconfig, found[nn.Conv2d].dtype_configs)
    assert suits is None


def test_a_model_prepared_for_tensorrt() -> None:
    """Its reference graph has signed activations, and is what another compiler takes over."""
    signed = qfx.QConfig(qfx.HistogramObserver.with_args(dtype=torch.qint8), qfx.default_weight_observer)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()).eval(), torch.randn(2, 3, 4, 4)
    prepared = qfx.prepare_fx(
        model, qfx.QConfigMapping().set_global(signed), (x,), backend_config=qfx.get_tensorrt_backend_config()
    )
    prepared(x)
    reference = qfx.convert_to_reference_fx(prepared)
    quantized = [node for node in reference.graph.nodes if node.target is torch.quantize_per_tensor]
    assert len(quantized) == 2
    assert all(node.args[-1] is torch.qint8 for node in quantized)
    torch.testing.assert_close(reference(x), model(x), atol=0.05, rtol=0.05)


def test_modules_for_training_stay_float() -> None:
    from qfx.nn import qat

    model = nn.Sequential(qat.Linear(3, 3, qconfig=qfx.default_qat_qconfig), nn.Linear(3, 3)).eval()
    prepared = qfx.prepare_fx(model, qfx.QConfigMapping().set_global(qfx.default_qconfig), (torch.randn(1, 3),))
    assert prepared.plan["float"] == {"_0": "Linear is a module for training; not built yet here (global)"}
    assert list(prepared.plan["instances"]) == ["_1"]
