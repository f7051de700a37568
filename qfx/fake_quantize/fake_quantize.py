"""Fake quantization by any observer, and with parameters that never move.

Compiled by TorchScript: no ``from __future__ import annotations`` here.
"""

from typing import Any

import torch
from torch import Tensor
from torch._jit_internal import is_scripting

from qfx import dtypes
from qfx.errors import ConfigError
from qfx.fake_quantize.base import FakeQuantizeBase, made_observer
from qfx.fake_quantize.rounding import quick, rounded
from qfx.observers import FixedQParamsObserver, MovingAverageMinMaxObserver


class FakeQuantize(FakeQuantizeBase):
    """Rounds a tensor to ``(clamp(round(x / scale + zero_point), quant_min, quant_max) - zero_point) * scale``.

    The gradient passes where the value is within the codes and is 0 elsewhere (the straight-through estimator, Bengio
    et al. 2013, arXiv:1308.3432).

    Args:
        observer: class or factory of the observer that chooses scale and zero point;
            ``MovingAverageMinMaxObserver`` by default.
        quant_min, quant_max: the codes; all of the dtype's by default.
        is_dynamic: the scale is chosen anew for each input; the observer must keep no history.
        observer_kwargs: arguments of the observer (``dtype``, ``qscheme``, ``reduce_range``, ``ch_axis`` ...).

    Input of any shape, floating point; output of the same shape and dtype.

    Attributes:
        activation_post_process: the observer.
        scale, zero_point: buffers, float32 and int32 (float32 for float-qparams schemes), one element or one a channel.

    Raises:
        ConfigError: codes without 0 or beyond the dtype, or a scheme that is neither per tensor nor per channel.

    Example:
        >>> fake = FakeQuantize(quant_min=0, quant_max=3)
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
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_dynamic: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        inner = made_observer(observer, quant_min, quant_max, {**observer_kwargs, "is_dynamic": is_dynamic})
        self.activation_post_process = inner
        # The observer may have narrowed the codes (reduce_range).
        self.quant_min: int = inner.quant_min
        self.quant_max: int = inner.quant_max
        self.is_dynamic = is_dynamic
        self.dtype, self.qscheme = inner.dtype, inner.qscheme
        self.ch_axis: int = getattr(inner, "ch_axis", -1)
        self.is_per_channel = dtypes.is_per_channel(self.qscheme)
        if not (self.is_per_channel or dtypes.is_per_tensor(self.qscheme)):
            raise ConfigError(f"fake quantization takes schemes per tensor or per channel; got {self.qscheme}")
        kind = torch.float if dtypes.has_float_zero_point(self.qscheme) else torch.int
        self.register_buffer("scale", torch.tensor([1.0], dtype=torch.float))
        self.register_buffer("zero_point", torch.tensor([0], dtype=kind))

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the observer's ``(scale, zero_point)``."""
        return self.activation_post_process.calculate_qparams()  # type: ignore[no-any-return]

    def forward(self, X: Tensor) -> Tensor:
        """Observe and round ``X``, as far as the switches say."""
        if self.observer_enabled[0] == 1:
            self.activation_post_process(X.detach())
            scale, zero_point = self.calculate_qparams()
            scale, zero_point = scale.to(self.scale.device), zero_point.to(self.zero_point.device)
            if self.scale.shape != scale.shape:
                self.scale.resize_(scale.shape)
                self.zero_point.resize_(zero_point.shape)
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point)
        if self.fake_quant_enabled[0] == 1:
            if not is_scripting():  # noqa: SIM102  TorchScript leaves out this branch only where it is alone
                if quick(X) and not self.zero_point.is_floating_point():
                    return self._quickly_rounded(X)
            if self.is_per_channel:
                X = torch.fake_quantize_per_channel_affine(
                    X, self.scale, self.zero_point, self.ch_axis, self.quant_min, self.quant_max
                )
            else:
                X = torch.fake_quantize_per_tensor_affine(
                    X, self.scale, self.zero_point, self.quant_min, self.quant_max
                )
        return X

    @torch.jit.unused
    def _quickly_rounded(self, x: Tensor) -> Tensor:
        axis = self.ch_axis if self.is_per_channel else None
        return rounded(x, self.scale, self.zero_point, axis, self.quant_min, self.quant_max)

    @torch.jit.export
    def extra_repr(self) -> str:
        """Show switches, codes and parameters."""
        return (
            f"fake_quant_enabled={self.fake_quant_enabled}, observer_enabled={self.observer_enabled}, "
            f"quant_min={self.quant_min}, quant_max={self.quant_max}, dtype={self.dtype}, qscheme={self.qscheme}, "
            f"ch_axis={self.ch_axis}, scale={self.scale}, zero_point={self.zero_point}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A fresh module has one scale; a saved one may have one a channel.
        for name in ("scale", "zero_point"):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != getattr(self, name).shape:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FixedQParamsFakeQuantize(FakeQuantize):
    """Rounds with parameters that never move: for results whose range mathematics gives (sigmoid, tanh).

    Args:
        observer: class or factory of a ``FixedQParamsObserver``.

    Raises:
        ConfigError: another observer.

    Example:
        >>> from qfx.observers import default_fixed_qparams_range_0to1_observer
        >>> FixedQParamsFakeQuantize(default_fixed_qparams_range_0to1_observer)(torch.tensor([0.5, 2.0]))
        tensor([0.5000, 0.9961])
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor

    def __init__(self, observer: Any) -> None:
        super().__init__(observer=observer)
        if type(self.activation_post_process) is not FixedQParamsObserver:
            kind = type(self.activation_post_process).__name__
            raise ConfigError(f"FixedQParamsFakeQuantize's observer must be a FixedQParamsObserver, not a {kind}")
        self._observer_ctr = observer
        self.scale.copy_(self.activation_post_process.scale)
        self.zero_point.copy_(self.activation_post_process.zero_point)

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the fixed ``(scale, zero_point)``."""
        return self.scale, self.zero_point

    @torch.jit.export
    def extra_repr(self) -> str:
        """Show switches, codes and parameters."""
        return (
            f"fake_quant_enabled={self.fake_quant_enabled}, observer_enabled={self.observer_enabled}, "
            f"scale={self.scale}, zero_point={self.zero_point}, dtype={self.dtype}, quant_min={self.quant_min}, "
            f"quant_max={self.quant_max}, qscheme={self.qscheme}"
        )
