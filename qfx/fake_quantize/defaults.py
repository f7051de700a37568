"""Ready factories of fake-quantize modules, under the names people know."""

from __future__ import annotations

import torch

from qfx.fake_quantize.fake_quantize import FakeQuantize, FixedQParamsFakeQuantize
from qfx.fake_quantize.fused import FusedMovingAvgObsFakeQuantize
from qfx.observers import (
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
)

_ALL_UNSIGNED = {"quant_min": 0, "quant_max": 255, "dtype": torch.quint8}
_ALL_SIGNED = {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8}

default_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_ALL_UNSIGNED, qscheme=torch.per_tensor_affine, reduce_range=True
)
default_histogram_fake_quant = FakeQuantize.with_args(
    observer=HistogramObserver, **_ALL_UNSIGNED, qscheme=torch.per_tensor_affine, reduce_range=True
)
default_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_ALL_SIGNED, qscheme=torch.per_tensor_symmetric, reduce_range=False
)
default_per_channel_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver,
    **_ALL_SIGNED,
    qscheme=torch.per_channel_symmetric,
    reduce_range=False,
    ch_axis=0,
)
# An averaging constant of 1 keeps the last input only: the range is chosen anew each time.
default_dynamic_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, is_dynamic=True, averaging_constant=1, **_ALL_UNSIGNED
)
default_embedding_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver,
    qscheme=torch.per_channel_affine_float_qparams,
    **_ALL_UNSIGNED,
    ch_axis=0,
    averaging_constant=1,
)
default_embedding_fake_quant_4bit = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver,
    qscheme=torch.per_channel_affine_float_qparams,
    ch_axis=0,
    dtype=torch.quint4x2,
    averaging_constant=1,
)

default_fixed_qparams_range_neg1to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_neg1to1_observer
)
default_fixed_qparams_range_0to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_0to1_observer
)
default_symmetric_fixed_qparams_fake_quant = default_fixed_qparams_range_neg1to1_fake_quant
default_affine_fixed_qparams_fake_quant = default_fixed_qparams_range_0to1_fake_quant

default_fused_act_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_ALL_UNSIGNED
)
default_fused_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_ALL_SIGNED, qscheme=torch.per_tensor_symmetric
)
default_fused_per_channel_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, **_ALL_SIGNED, qscheme=torch.per_channel_symmetric
)
# Without -128 and with a scale that is not too small: what XNNPACK and QNNPACK kernels ask for.
fused_wt_fake_quant_range_neg_127_to_127 = default_fused_wt_fake_quant.with_args(
    quant_min=-127, quant_max=127, eps=2**-12
)
fused_per_channel_wt_fake_quant_range_neg_127_to_127 = default_fused_per_channel_wt_fake_quant.with_args(
    quant_min=-127, quant_max=127, eps=2**-12
)
