"""Fake quantization whose scale and zero point are learned with the weights.

Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153; Jain et al. 2020, Trained Quantization Thresholds,
arXiv:1903.08066. The gradients are torch's (``torch._fake_quantize_learnable_per_tensor_affine``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qfx import dtypes
from qfx.errors import ConfigError
from qfx.fake_quantize.base import FakeQuantizeBase, made_observer


class LearnableFakeQuantize(FakeQuantizeBase):
    """Rounds with a scale and a zero point that an observer estimates first and the optimizer learns afterwards.

    It starts with estimates; see ``enable_param_learning``, ``enable_static_estimate``, ``enable_static_observation``.

    Args:
        observer: class or factory of an observer with even steps.
        quant_min, quant_max: codes, 0 and 255 by default.
        scale, zero_point: what learning starts from where nothing was estimated; 1.0 and 0.0.
        channel_len: number of channels, for schemes per channel; -1 (default) for one scale.
        use_grad_scaling: divide gradients of scale and zero point by ``sqrt(elements * quant_max)``, as Esser et al.
            propose (section 2.2); False by default.
        observer_kwargs: for the observer.

    Attributes:
        scale, zero_point: parameters, float32, shape ``(1,)`` or ``(channel_len,)``.
        static_enabled: buffer of one ``torch.uint8``: 1 while the observer estimates.
        learning_enabled: the same, 1 while both are learned.

    Raises:
        ConfigError: codes that are not all of the observer's dtype, or no channels.

    Example:
        >>> from qfx.observers import MovingAverageMinMaxObserver
        >>> learned = LearnableFakeQuantize(MovingAverageMinMaxObserver).enable_param_learning()
        >>> learned(torch.randn(4)).sum().backward()
        >>> learned.scale.grad.shape
        torch.Size([1])
    """

    static_enabled: Tensor
    learning_enabled: Tensor
    eps: Tensor

    def __init__(
        self,
        observer: Any,
        quant_min: int = 0,
        quant_max: int = 255,
        scale: float = 1.0,
        zero_point: float = 0.0,
        channel_len: int = -1,
        use_grad_scaling: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        if channel_len != -1 and channel_len < 1:
            raise ConfigError(f"Channel size must be a positive integer. It is {channel_len}; use -1 for one scale")
        if quant_min >= quant_max:
            raise ConfigError(f"quant_min must be strictly less than quant_max. They are {quant_min} and {quant_max}")
        inner = made_observer(observer, quant_min, quant_max, observer_kwargs)
        self.quant_min, self.quant_max = quant_min, quant_max
        self.use_grad_scaling = use_grad_scaling
        count = max(channel_len, 1)
        self.scale = nn.Parameter(torch.full([count], float(scale)))
        self.zero_point = nn.Parameter(torch.full([count], float(zero_point)))
        self.activation_post_process = inner
        self.dtype, self.qscheme = inner.dtype, inner.qscheme
        self.ch_axis: int = getattr(inner, "ch_axis", -1)
        self.bitwidth = int(math.log2(quant_max - quant_min + 1))
        self.register_buffer("static_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("learning_enabled", torch.tensor([0], dtype=torch.uint8))
        self.register_buffer("eps", torch.tensor([torch.finfo(torch.float32).eps]))

    # -- switches ----------------------------------------------------------------------------------------------
    def enable_param_learning(self) -> LearnableFakeQuantize:
        """Learn scale and zero point, without the observer; round."""
        return self.toggle_qparam_learning(True).toggle_fake_quant(True).toggle_observer_update(False)

    def enable_static_estimate(self) -> LearnableFakeQuantize:
        """Let the observer estimate scale and zero point; round."""
        return self.toggle_qparam_learning(False).toggle_fake_quant(True).toggle_observer_update(True)

    def enable_static_observation(self) -> LearnableFakeQuantize:
        """Let the observer estimate scale and zero point; return inputs as they are."""
        return self.toggle_qparam_learning(False).toggle_fake_quant(False).toggle_observer_update(True)

    def toggle_observer_update(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Let the observer estimate, or not."""
        self.static_enabled[0] = int(enabled)
        return self

    def enable_observer(self, enabled: bool = True) -> None:
        """Let the observer estimate, or not."""
        self.toggle_observer_update(enabled)

    def toggle_qparam_learning(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Let scale and zero point have gradients, or not."""
        self.learning_enabled[0] = int(enabled)
        self.scale.requires_grad = enabled
        self.zero_point.requires_grad = enabled
        return self

    def toggle_fake_quant(self, enabled: bool = True) -> LearnableFakeQuantize:
        """Round, or return inputs as they are."""
        self.fake_quant_enabled[0] = int(enabled)
        return self

    def observe_quant_params(self) -> None:
        """Print scale and zero point."""
        print(f"{type(self).__name__} Scale: {self.scale.detach()}")
        print(f"{type(self).__name__} Zero Point: {self.zero_point.detach()}")

    # -- numbers -----------------------------------------------------------------------------------------------
    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return ``(scale, zero_point)`` as they are now, the zero point a code."""
        scale = self.scale.detach().clamp(min=float(self.eps))
        return scale, self.zero_point.detach().round().clamp(self.quant_min, self.quant_max).long()

    def forward(self, X: Tensor) -> Tensor:
        """Estimate and round ``X``, as far as the switches say."""
        scale, zero_point = self.scale, self.zero_point
        with torch.no_grad():
            if self.static_enabled[0] == 1:
                self.activation_post_process(X.detach())
                found = self.activation_post_process.calculate_qparams()
                for own, estimate in zip((scale, zero_point), found, strict=True):
                    if own.shape != estimate.shape:
                        raise ConfigError(
                            f"{type(self).__name__} has {own.numel()} scales and saw {estimate.numel()} channels; say "
                            "how many there are with channel_len"
                        )
                    own.copy_(estimate)
            else:
                scale.clamp_(min=float(self.eps))
            if self.fake_quant_enabled[0] == 1 and dtypes.is_symmetric(self.qscheme):
                zero_point.zero_()
        if self.fake_quant_enabled[0] == 0:
            return X
        factor = 1.0 / math.sqrt(X.numel() * self.quant_max) if self.use_grad_scaling else 1.0
        if dtypes.is_per_channel(self.qscheme):
            rounded: Tensor = torch._fake_quantize_learnable_per_channel_affine(
                X, scale, zero_point, self.ch_axis, self.quant_min, self.quant_max, factor
            )
        else:
            rounded = torch._fake_quantize_learnable_per_tensor_affine(
                X, scale, zero_point, self.quant_min, self.quant_max, factor
            )
        return rounded
