from __future__ import annotations

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import ConfigError

Q = qfx.QConfig
STATIC, DYNAMIC, HALF = qfx.default_qconfig, qfx.default_dynamic_qconfig, qfx.float16_static_qconfig
HALF_DYNAMIC, TABLES = qfx.float16_dynamic_qconfig, qfx.float_qparams_weight_only_qconfig
BIASES = Q(qfx.MinMaxObserver.with_args(dtype=torch.qint32), qfx.default_weight_observer)

# Question -> the configurations it answers yes for.
ANSWERS = {
    "activation_is_statically_quantized": [STATIC, HALF, BIASES],
    "activation_is_dynamically_quantized": [DYNAMIC, HALF_DYNAMIC],
    "activation_is_int8_quantized": [STATIC, DYNAMIC],
    "activation_is_int32_quantized": [BIASES],
    "weight_is_quantized": [STATIC, DYNAMIC, HALF, HALF_DYNAMIC, TABLES, BIASES],
    "weight_is_statically_quantized": [STATIC, DYNAMIC, TABLES, BIASES],
    "op_is_int8_dynamically_quantized": [DYNAMIC],
}
ALL = [STATIC, DYNAMIC, HALF, HALF_DYNAMIC, TABLES, BIASES]


@pytest.mark.parametrize("question", ANSWERS)
def test_questions(question: str) -> None:
    ask = getattr(qfx, question)
    assert [qconfig for qconfig in ALL if ask(qconfig)] == [q for q in ALL if q in ANSWERS[question]]
    with pytest.raises(ConfigError, match="there is no QConfig"):
        ask(None)


def test_dtypes() -> None:
    assert qfx.activation_dtype(HALF) is torch.float16
    assert qfx.weight_dtype(TABLES) is torch.quint8
    assert qfx.get_qconfig_dtypes(DYNAMIC) == (torch.quint8, torch.qint8, True)


def test_kinds() -> None:
    kinds = [qfx.get_quant_type(qconfig).name for qconfig in ALL]
    assert kinds == ["STATIC", "DYNAMIC", "STATIC", "DYNAMIC", "WEIGHT_ONLY", "STATIC"]
    floats = Q(qfx.PlaceholderObserver, qfx.PlaceholderObserver)
    with pytest.raises(ConfigError, match=r"torch\.float32 and weights as torch\.float32 make no kind"):
        qfx.get_quant_type(floats)


def test_the_class_that_replaces_a_module() -> None:
    class Observed(nn.Linear):
        pass

    custom = qfx.PrepareCustomConfig().set_float_to_observed_mapping(nn.Linear, Observed)
    mapping = custom.float_to_observed_mapping
    assert qfx.get_swapped_custom_module_class(nn.Linear(1, 1), mapping, STATIC) is Observed
    with pytest.raises(ConfigError, match="nothing replaces ReLU for static quantization; the mapping has Linear"):
        qfx.get_swapped_custom_module_class(nn.ReLU(), mapping, STATIC)
    with pytest.raises(ConfigError, match="for dynamic quantization; the mapping has no class"):
        qfx.get_swapped_custom_module_class(nn.Linear(1, 1), mapping, DYNAMIC)
