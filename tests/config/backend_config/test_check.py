from __future__ import annotations

import pytest
import torch

from qfx import config
from qfx.config import DTypeConfig, DTypeWithConstraints, QConfig, first_supported, why_unsupported
from qfx.config.backend_config import dtypes
from qfx.observers import (
    HistogramObserver,
    MinMaxObserver,
    PlaceholderObserver,
    default_dynamic_quant_observer,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
    default_weight_observer,
)

SIGMOID = dtypes.with_fixed_range(dtypes.default_op_quint8, "sigmoid")
DYNAMIC = QConfig(default_dynamic_quant_observer, default_weight_observer)


def signed(**arguments: object) -> QConfig:
    return QConfig(
        HistogramObserver.with_args(dtype=torch.qint8, eps=2**-12),
        MinMaxObserver.with_args(dtype=torch.qint8, **arguments),
    )


@pytest.mark.parametrize(
    ("qconfig", "wanted"),
    [
        (config.default_qconfig, dtypes.weighted_int8),
        (config.get_default_qconfig("x86"), dtypes.weighted_int8),
        (
            QConfig(MinMaxObserver.with_args(dtype=torch.uint8), MinMaxObserver.with_args(dtype=torch.int8)),
            dtypes.weighted_int8,
        ),
        (config.get_default_qconfig("x86"), dtypes.default_op_quint8),
        (config.default_qconfig, DTypeConfig()),
        (config.default_symmetric_qnnpack_qconfig, dtypes.weighted_qint8_symmetric),
        (QConfig(default_fixed_qparams_range_0to1_observer, None), SIGMOID),
        (config.default_reuse_input_qconfig, dtypes.default_op_quint8),
        (config.default_reuse_input_qconfig, SIGMOID),
        (config.float16_static_qconfig, dtypes.default_op_fp16),
        (DYNAMIC, dtypes.dynamic_int8),
        (QConfig(PlaceholderObserver, MinMaxObserver), dtypes.weight_only_quint8),
    ],
)
def test_suits(qconfig: QConfig, wanted: DTypeConfig) -> None:
    assert why_unsupported(qconfig, wanted) is None


@pytest.mark.parametrize(
    ("qconfig", "wanted", "reason"),
    [
        (
            config.default_qconfig,
            DTypeConfig(output_dtype=torch.qint8),
            "output: the backend takes torch.qint8, the config asks for torch.quint8",
        ),
        (
            config.default_quint8_weight_qconfig,
            dtypes.weighted_int8,
            "weight: the backend takes torch.qint8, the config asks for torch.quint8",
        ),
        (
            QConfig(MinMaxObserver, None),
            dtypes.weighted_int8,
            "weight: the backend takes torch.qint8, the config asks for torch.float32",
        ),
        (DYNAMIC, dtypes.weighted_int8, "input: the backend is static here, the config asks for dynamic"),
        (config.default_qconfig, dtypes.dynamic_int8, "input: the backend is dynamic here, the config asks for static"),
        (
            signed(),
            dtypes.weighted_qint8_symmetric,
            "weight: the backend takes codes -127..127, the config has -128..127",
        ),
        (
            signed(quant_min=-127, quant_max=127),
            dtypes.weighted_qint8_symmetric,
            f"weight: the backend asks for scales of at least {2**-12}, the config's eps is {2**-23}",
        ),
        (
            config.default_qconfig,
            SIGMOID,
            "input: the kernel has scale 0.00390625 built in, MinMaxObserver chooses its own; "
            "use a FixedQParamsObserver",
        ),
        (
            QConfig(default_fixed_qparams_range_neg1to1_observer, None),
            SIGMOID,
            "input: the kernel has scale 0.00390625 built in, the config has 0.0078125",
        ),
        (
            QConfig(PlaceholderObserver.with_args(dtype=torch.qint8), None),
            DTypeConfig(DTypeWithConstraints(torch.qint8, quant_min_lower_bound=-127)),
            "input: the backend limits codes to -127.., PlaceholderObserver does not say its codes",
        ),
        (
            QConfig(MinMaxObserver.with_args(dtype=torch.qint8), None),
            DTypeConfig(DTypeWithConstraints(torch.qint8, quant_max_upper_bound=63)),
            "input: the backend takes codes ..63, the config has -128..127",
        ),
        (
            QConfig(PlaceholderObserver.with_args(dtype=torch.qint8), None),
            DTypeConfig(DTypeWithConstraints(torch.qint8, zero_point_exact_match=0)),
            "input: the kernel has zero point 0 built in, PlaceholderObserver chooses its own; "
            "use a FixedQParamsObserver",
        ),
    ],
)
def test_does_not_suit(qconfig: QConfig, wanted: DTypeConfig, reason: str) -> None:
    assert why_unsupported(qconfig, wanted) == reason


def test_an_operator_without_a_weight_ignores_the_weight() -> None:
    x86 = dtypes.with_fixed_range(dtypes.weighted_int8, "tanh")
    qconfig = QConfig(default_fixed_qparams_range_neg1to1_observer, None)
    assert why_unsupported(qconfig, x86) is not None
    assert why_unsupported(qconfig, x86, has_weight=False) is None


def test_first_supported() -> None:
    choices = [dtypes.weighted_qint8_symmetric, dtypes.weighted_int8]
    assert first_supported(config.default_qconfig, choices) == (dtypes.weighted_int8, None)
    found, reason = first_supported(DYNAMIC, choices)
    assert found is None
    assert reason is not None
    assert reason.endswith("asks for dynamic (and 1 more dtype configs do not suit either)")
    assert first_supported(DYNAMIC, []) == (None, "the backend names no dtypes for this pattern")
