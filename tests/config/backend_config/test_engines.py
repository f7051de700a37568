from __future__ import annotations

import operator

import pytest
import torch
from torch import nn
from torch.nn import functional

from qfx import config
from qfx.config import BackendConfig, BackendPatternConfig, ObservationType, first_supported
from qfx.nn import intrinsic
from qfx.nn.quantized import reference

BACKENDS = {
    "native": config.get_native_backend_config,
    "x86": config.get_x86_backend_config,
    "fbgemm": config.get_fbgemm_backend_config,
    "qnnpack": config.get_qnnpack_backend_config,
    "onednn": config.get_onednn_backend_config,
}


def by_pattern(backend: BackendConfig) -> dict[object, BackendPatternConfig]:
    return {made.pattern: made for made in backend.configs}


@pytest.mark.parametrize("name", BACKENDS)
def test_is_new_named_and_round_trips(name: str) -> None:
    backend = BACKENDS[name]()
    assert backend.name == name
    assert BACKENDS[name]() is not backend
    assert BackendConfig.from_dict(backend.to_dict()).to_dict() == backend.to_dict()
    backend.configs[0].add_dtype_config(config.DTypeConfig())
    assert BACKENDS[name]().to_dict() != backend.to_dict()


def test_native_as_a_dictionary() -> None:
    assert config.get_native_backend_config_dict() == config.get_native_backend_config().to_dict()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution(dims: int) -> None:
    found = by_pattern(config.get_native_backend_config())
    conv, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
    assert found[conv].root_module is conv
    assert found[conv].reference_quantized_module is getattr(reference, f"Conv{dims}d")
    assert found[conv, functional.relu].fused_module is getattr(intrinsic, f"ConvReLU{dims}d")
    assert found[conv, norm, nn.ReLU].fused_module is getattr(intrinsic, f"ConvBnReLU{dims}d")
    assert found[getattr(functional, f"conv{dims}d")]._input_type_to_index == {"weight": 1, "bias": 2}
    assert getattr(nn, f"ConvTranspose{dims}d") in found


@pytest.mark.parametrize(
    ("pattern", "observation"),
    [
        (nn.Linear, ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT),
        ((operator.add, torch.relu), ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT),
        (torch.cat, ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT),
        (functional.max_pool2d, ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT),
        ("reshape", ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT),
        ("size", ObservationType.INPUT_OUTPUT_NOT_OBSERVED),
    ],
)
def test_how_outputs_are_observed(pattern: object, observation: ObservationType) -> None:
    assert by_pattern(config.get_x86_backend_config())[pattern].observation_type is observation


def test_adding_a_number_keeps_the_codes() -> None:
    by_tensors = by_pattern(config.get_native_backend_config())[torch.add]._num_tensor_args_to_observation_type
    assert by_tensors[1] is ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT
    assert by_tensors[2] is ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT


@pytest.mark.parametrize("engine", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_the_default_mapping_suits_its_backend(engine: str) -> None:
    """Every static pattern is quantized by the entry the default mapping has for it."""
    mapping = config.get_default_qconfig_mapping(engine)
    refused = []
    for made in BACKENDS[engine]().configs:
        static = [dtype_config for dtype_config in made.dtype_configs if not dtype_config.is_dynamic]
        weight_only = all(dtype_config.input_dtype == torch.float for dtype_config in static)
        if weight_only:
            continue
        last = made.pattern[-1] if isinstance(made.pattern, tuple) else made.pattern
        types = (last, made.root_module) if made.root_module else (last,)
        found = config.resolve(mapping, object_types=types, module_path="", index=0).qconfig
        assert found is not None
        _, reason = first_supported(found, static, has_weight=None if made.root_module else False)
        if reason is not None:
            refused.append((config.public_name(last), reason))
    assert refused == []


def test_a_sigmoid_with_a_chosen_scale_is_refused() -> None:
    dtype_configs = by_pattern(config.get_x86_backend_config())[nn.Sigmoid].dtype_configs
    _, reason = first_supported(config.get_default_qconfig(), dtype_configs)
    assert reason is not None
    assert reason.startswith("input: the kernel has scale 0.00390625 built in")
