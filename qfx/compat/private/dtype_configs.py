"""The dtypes each engine takes, by the names they had beside its backend config (``backend_config.x86`` ...)."""

from __future__ import annotations

from qfx.config import DTypeConfig
from qfx.config.backend_config import dtypes

_OF_ENGINES = ("", "fbgemm_", "qnnpack_", "x86_")
_NAMES = {
    "default_op_quint8_dtype_config": dtypes.default_op_quint8,
    "default_op_fp16_dtype_config": dtypes.default_op_fp16,
    "default_dynamic_int8_dtype_config": dtypes.dynamic_int8,
    "default_dynamic_float16_dtype_config": dtypes.dynamic_float16,
    "weight_only_quint8_dtype_config": dtypes.weight_only_quint8,
    "weight_only_quint4x2_dtype_config": dtypes.weight_only_quint4x2,
}

# What is called alike for all engines, and then what is not.
CONSTANTS: dict[str, DTypeConfig] = {
    **{f"{engine}{name}": value for engine in _OF_ENGINES for name, value in _NAMES.items()},
    **{f"{engine}weighted_op_quint8_dtype_config": dtypes.weighted_int8 for engine in ("", "fbgemm_", "qnnpack_")},
    "x86_weighted_op_int8_dtype_config": dtypes.weighted_int8,
    "input_output_only_quint8_dtype_config": dtypes.layer_norm_int8,
    "qnnpack_default_op_qint8_symmetric_dtype_config": dtypes.default_op_qint8_symmetric,
    "qnnpack_weighted_op_qint8_symmetric_dtype_config": dtypes.weighted_qint8_symmetric,
    "onednn_weighted_op_int8_dtype_config": dtypes.weighted_int8,
    "onednn_op_quint8_dtype_config": dtypes.default_op_quint8,
    "onednn_dynamic_int8_dtype_config": dtypes.dynamic_int8,
    "onednn_weight_only_qint8_dtype_config": dtypes.weight_only_qint8,
    "onednn_input_output_only_quint8_dtype_config": dtypes.layer_norm_int8,
    "executorch_weighted_op_int8_dtype_config": dtypes.weighted_int8,
    "executorch_default_op_quint8_dtype_config": dtypes.default_op_quint8,
    "executorch_default_dynamic_quint8_dtype_config": dtypes.dynamic_int8,
    "executorch_default_dynamic_qint8_dtype_config": dtypes.dynamic_qint8_symmetric,
    "executorch_default_dynamic_float16_dtype_config": dtypes.dynamic_float16,
    "executorch_weight_only_quint8_dtype_config": dtypes.weight_only_quint8,
}

rnn_op_dtype_configs = [CONSTANTS["onednn_dynamic_int8_dtype_config"]]

_SIGNED = dtypes.weighted_qint8_symmetric
executorch_act_qint8_scale_min_2_neg_12 = _SIGNED.input_dtype_with_constraints
executorch_weight_qint8_neg_127_to_127_scale_min_2_neg_12 = _SIGNED.weight_dtype_with_constraints


def __getattr__(name: str) -> DTypeConfig:
    """One of the constants.

    Raises:
        AttributeError: there is none of that name.
    """
    if name in CONSTANTS:
        return CONSTANTS[name]
    raise AttributeError(f"no dtype config is called {name!r}")


__all__ = [
    *CONSTANTS,
    "executorch_act_qint8_scale_min_2_neg_12",
    "executorch_weight_qint8_neg_127_to_127_scale_min_2_neg_12",
    "rnn_op_dtype_configs",
]
