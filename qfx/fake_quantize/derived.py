"""An observer that observes nothing: its parameters follow from those of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from qfx import dtypes
from qfx.errors import ConfigError
from qfx.fake_quantize.base import FakeQuantizeBase
from qfx.observers import ObserverBase

ObserverOrFakeQuantize: TypeAlias = ObserverBase | FakeQuantizeBase
"""What stands at a place of a prepared model and knows its scale."""

DeriveQParams: TypeAlias = Callable[[list[Any]], tuple[Tensor, Tensor]]


class _DerivedObserverOrFakeQuantize(ObserverBase):
    """Its scale and zero point are worked out from other observers: a bias has the product of two scales.

    Args:
        dtype: the dtype the tensor will be quantized to, often ``torch.int32``.
        obs_or_fqs: the observers or fake-quantize modules it depends on.
        derive_qparams_fn: called with ``obs_or_fqs``; returns ``(scale, zero_point)``.
        quant_min, quant_max: the codes; ``None`` for all of the dtype's.
        qscheme: per tensor or per channel; ``None`` says nothing.
        ch_axis: axis with one scale an index, for schemes per channel.

    Raises:
        ConfigError: a scheme per channel without ``ch_axis``.

    Example:
        >>> from qfx.observers import FixedQParamsObserver
        >>> sources = [FixedQParamsObserver(0.5, 0), FixedQParamsObserver(0.25, 0)]
        >>> def product(of):
        ...     (a, zero), (b, _) = (each.calculate_qparams() for each in of)
        ...     return a * b, zero
        >>> _DerivedObserverOrFakeQuantize(torch.int32, sources, product).calculate_qparams()
        (tensor([0.1250]), tensor([0], dtype=torch.int32))
    """

    def __init__(
        self,
        dtype: torch.dtype,
        obs_or_fqs: list[ObserverOrFakeQuantize],
        derive_qparams_fn: DeriveQParams,
        quant_min: int | None = None,
        quant_max: int | None = None,
        qscheme: torch.qscheme | None = None,
        ch_axis: int | None = None,
    ) -> None:
        super().__init__(dtype)
        if dtypes.is_per_channel(qscheme) and ch_axis is None:
            raise ConfigError(f"{qscheme} has one scale a channel: say along which axis with ch_axis")
        self.obs_or_fqs = obs_or_fqs
        self.derive_qparams_fn = derive_qparams_fn
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.qscheme = qscheme
        self.ch_axis = ch_axis

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``; nothing is observed."""
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return what the function makes of the others, ``(scale, zero_point)``."""
        return self.derive_qparams_fn(self.obs_or_fqs)


DerivedObserverOrFakeQuantize = _DerivedObserverOrFakeQuantize
