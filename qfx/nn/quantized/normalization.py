"""Quantized norms that compute their statistics from the input: integers in and out, float32 arithmetic between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.nn.quantized.requantizing import BufferedQParams


class LayerNorm(BufferedQParams, nn.LayerNorm):
    """Quantized ``nn.LayerNorm``.

    Args:
        normalized_shape: trailing sizes that are normalized together.
        weight, bias: float parameters of that shape, or None.
        scale, zero_point: of the output.
        eps, elementwise_affine, device, dtype: as in ``nn.LayerNorm``.
    """

    def __init__(
        self,
        normalized_shape: Any,
        weight: Any,
        bias: Any,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(normalized_shape, eps=eps, elementwise_affine=elementwise_affine, device=device, dtype=dtype)
        self.weight, self.bias = weight, bias
        self._register_qparams(scale, zero_point, device, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize a ``torch.quint8`` input over its trailing dimensions."""
        return torch.ops.quantized.layer_norm(  # type: ignore[no-any-return]
            input, self.normalized_shape, self.weight, self.bias, self.eps, float(self.scale), int(self.zero_point)
        )

    def _get_name(self) -> str:
        return "QuantizedLayerNorm"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> LayerNorm:
        return cls(
            module.normalized_shape,
            module.weight,
            module.bias,
            scale,
            zero_point,
            module.eps,
            module.elementwise_affine,
        )


class GroupNorm(BufferedQParams, nn.GroupNorm):
    """Quantized ``nn.GroupNorm``.

    Args:
        num_groups, num_channels: channels are normalized in this many groups.
        weight, bias: float parameters per channel, or None.
        scale, zero_point: of the output.
        eps, affine, device, dtype: as in ``nn.GroupNorm``.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        weight: Any,
        bias: Any,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device=device, dtype=dtype)
        self.weight, self.bias = weight, bias
        self._register_qparams(scale, zero_point, device, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize a ``torch.quint8`` input (N, C, ...) group by group."""
        return torch.ops.quantized.group_norm(  # type: ignore[no-any-return]
            input, self.num_groups, self.weight, self.bias, self.eps, float(self.scale), int(self.zero_point)
        )

    def _get_name(self) -> str:
        return "QuantizedGroupNorm"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> GroupNorm:
        return cls(
            module.num_groups,
            module.num_channels,
            module.weight,
            module.bias,
            scale,
            zero_point,
            module.eps,
            module.affine,
        )


class _InstanceNorm(BufferedQParams, nn.modules.instancenorm._InstanceNorm):
    """Quantized instance norm of any dimension.

    Args:
        num_features: channels.
        weight, bias: float parameters per channel, or None.
        scale, zero_point: of the output.
        eps, momentum, affine, track_running_stats, device, dtype: as in ``nn.InstanceNorm2d``; the kernel always
            takes the statistics of the input.
    """

    def __init__(
        self,
        num_features: int,
        weight: Any,
        bias: Any,
        scale: float,
        zero_point: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.weight, self.bias = weight, bias
        self._register_qparams(scale, zero_point, device, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize each channel of each sample of a ``torch.quint8`` input."""
        return torch.ops.quantized.instance_norm(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.eps, float(self.scale), int(self.zero_point)
        )

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> _InstanceNorm:
        return cls(module.num_features, module.weight, module.bias, scale, zero_point, module.eps, affine=module.affine)


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """Quantized ``nn.InstanceNorm1d``: (N, C, L)."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """Quantized ``nn.InstanceNorm2d``: (N, C, H, W)."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """Quantized ``nn.InstanceNorm3d``: (N, C, D, H, W)."""
