"""The moving average and the rounding in one kernel of torch's.

Compiled by TorchScript: no ``from __future__ import annotations`` here.
"""

from typing import Any

import torch
from torch import Tensor
from torch._jit_internal import is_scripting
from torch.nn.modules.module import _has_any_global_hook

from qfx import dtypes
from qfx.errors import ConfigError
from qfx.fake_quantize.averages import move_averages, qparams_of_rows
from qfx.fake_quantize.fake_quantize import FakeQuantize
from qfx.fake_quantize.products import multiplied
from qfx.fake_quantize.room import room_for
from qfx.fake_quantize.rounding import ends, folded_and_rounded, quick, rounded
from qfx.graph.hooks import hooks_of
from qfx.observers import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver


class FusedMovingAvgObsFakeQuantize(FakeQuantize):
    """``FakeQuantize`` with a moving-average observer, computed in one pass: what QAT uses by default.

    Args:
        observer: ``MovingAverageMinMaxObserver`` (default) or ``MovingAveragePerChannelMinMaxObserver``, or a factory
            of one.
        quant_min, quant_max: the codes, 0 and 255 by default.
        observer_kwargs: arguments of the observer.

    Raises:
        ConfigError: another observer, or what ``FakeQuantize`` refuses.

    Example:
        >>> fake = FusedMovingAvgObsFakeQuantize(quant_min=0, quant_max=3)
        >>> fake(torch.tensor([0.0, 0.4, 1.0, 3.0]))
        tensor([0., 0., 1., 3.])
    """

    scale: Tensor
    zero_point: Tensor
    fake_quant_enabled: Tensor
    observer_enabled: Tensor

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int = 0,
        quant_max: int = 255,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__(observer, quant_min, quant_max, **observer_kwargs)
        inner = self.activation_post_process
        if not isinstance(inner, MovingAverageMinMaxObserver | MovingAveragePerChannelMinMaxObserver):
            raise ConfigError(
                "Fused observer+fake_quant module only works with MovingAverageMinMaxObserver or "
                "MovingAveragePerChannelMinMaxObserver, whose moving average its kernel computes, not with "
                f"{type(inner).__name__}; use FakeQuantize for it"
            )
        # The kernel reads its switches as int64.
        self.register_buffer("fake_quant_enabled", torch.tensor([1], dtype=torch.long))
        self.register_buffer("observer_enabled", torch.tensor([1], dtype=torch.long))
        self.is_symmetric_quant = dtypes.is_symmetric(self.qscheme)

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the observer's ``(scale, zero_point)``."""
        return self.activation_post_process.calculate_qparams()  # type: ignore[no-any-return]

    def forward(self, X: Tensor) -> Tensor:
        """Observe and round ``X``, as far as the switches say."""
        inner = self.activation_post_process
        inner._note(X)  # the kernel moves the averages, the observer remembers what it was shown
        if not is_scripting():  # noqa: SIM102  TorchScript leaves out this branch only where it is alone
            if quick(X) and not self.zero_point.is_floating_point():
                return self._quickly(X)
        return self._kernel(X, self.ch_axis)

    def _kernel(self, x: Tensor, axis: int) -> Tensor:
        inner = self.activation_post_process
        return torch.fused_moving_avg_obs_fake_quant(
            x,
            self.observer_enabled,
            self.fake_quant_enabled,
            inner.min_val,
            inner.max_val,
            self.scale,
            self.zero_point,
            inner.averaging_constant,
            self.quant_min,
            self.quant_max,
            axis,
            self.is_per_channel,
            self.is_symmetric_quant,
        )

    @torch.jit.unused
    def _observe(self, pair: Tensor) -> None:
        """Move the averages, and scale and zero point with them: the ends are all they depend on."""
        inner, scale, zero_point = self.activation_post_process, self.scale, self.zero_point
        rows = self.is_per_channel and scale.shape == zero_point.shape == pair.shape[:1]
        if rows and scale.dtype == pair.dtype and zero_point.dtype == torch.int32:
            low, high = inner.min_val, inner.max_val
            if move_averages(pair, low, high, inner.averaging_constant):
                found = qparams_of_rows(low, high, self.quant_min, self.quant_max, symmetric=self.is_symmetric_quant)
                scale.copy_(found[0])
                zero_point.copy_(found[1])
                return
        self._kernel(pair, 0)

    @torch.jit.unused
    def _quickly(self, x: Tensor) -> Tensor:
        axis = self.ch_axis if self.is_per_channel else None
        pair = None
        if self.observer_enabled[0] == 1:
            pair = ends(x, axis)
            self._observe(pair)
        if self.fake_quant_enabled[0] != 1:
            return x
        return rounded(x, self.scale, self.zero_point, axis, self.quant_min, self.quant_max, pair)

    @torch.jit.unused
    def of_product(self, weight: Tensor, factor: Tensor) -> Tensor:
        """``self(weight * factor)``, at half the price where nothing but this class has a say in it.

        Args:
            weight: channels first.
            factor: one element a channel, size 1 in every other dimension.
        """
        inner = self.activation_post_process
        plain = type(self) is FusedMovingAvgObsFakeQuantize and not hooks_of(self) and not _has_any_global_hook()
        rows = self.is_per_channel and self.ch_axis == 0 and not self.zero_point.is_floating_point()
        if not (plain and rows and quick(weight) and self.fake_quant_enabled[0] == 1):
            return self(multiplied(weight, factor))  # type: ignore[no-any-return]
        product = torch.mul(weight.detach(), factor.detach(), out=room_for(self, weight))
        inner._note(product)
        pair = ends(product, 0)
        if self.observer_enabled[0] == 1:
            self._observe(pair)
        return folded_and_rounded(
            weight, factor, product, pair, self.scale, self.zero_point, self.quant_min, self.quant_max
        )

    @torch.jit.export
    def extra_repr(self) -> str:
        """Show switches, codes and parameters."""
        return (
            f"fake_quant_enabled={self.fake_quant_enabled}, observer_enabled={self.observer_enabled}, "
            f"scale={self.scale}, zero_point={self.zero_point}, dtype={self.dtype}, quant_min={self.quant_min}, "
            f"quant_max={self.quant_max}, qscheme={self.qscheme}, "
            f"reduce_range={self.activation_post_process.reduce_range}"
        )
