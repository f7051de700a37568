"""Scales of weights: the axis they lie along, and how a reference module is told of them."""

from __future__ import annotations

from typing import Any

from qfx import dtypes
from qfx.kernels.weighted import output_axis
from qfx.ops import Op
from qfx.patterns.catalogue.weighted import TRANSPOSED
from qfx.qparams import QParams


def along_output_channels(observer: Any, op: Op) -> Any:
    """Let an observer of a weight per channel look along the weight's output channels; returns it.

    Observers count along axis 0 by default. In a transposed weight that axis has the input channels, for which no
    kernel has scales, and a mapping for the whole model cannot say so layer by layer. An axis of the user's own choice
    stays.
    """
    if op in TRANSPOSED:
        for each in {
            id(part): part for part in (observer, getattr(observer, "activation_post_process", observer))
        }.values():
            if dtypes.is_per_channel(getattr(each, "qscheme", None)) and getattr(each, "ch_axis", None) == 0:
                each.ch_axis = output_axis(op.name)
    return observer


def weight_qparams(qparams: QParams) -> dict[str, Any]:
    """What a reference module is told of its weight."""
    scheme: Any = qparams.qscheme
    found = {
        "qscheme": dtypes.affine(scheme),
        "dtype": qparams.dtype,
        "scale": qparams.scale,
        "zero_point": qparams.zero_point,
        "quant_min": qparams.quant_min,
        "quant_max": qparams.quant_max,
    }
    return found | ({"axis": qparams.axis} if qparams.is_per_channel else {})
