"""Layers that can be equalized: what both kinds of equalization, cross-layer and input-weight, ask of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qfx.nn import intrinsic

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
FUSED = (intrinsic.LinearReLU, intrinsic.ConvReLU1d, intrinsic.ConvReLU2d, intrinsic.ConvReLU3d)


def layer_in(module: Any) -> Any:
    """The linear or convolution a module is, or holds before its relu; None where it is something else."""
    inner = module[0] if isinstance(module, FUSED) else module
    return inner if type(inner) in LAYERS else None


def along(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Factors ``(n,)`` in the shape that multiplies a weight along an axis."""
    return factors.reshape([-1 if each == axis else 1 for each in range(weight.dim())])
