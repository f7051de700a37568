"""What all fake-quantize modules have in common: two switches.

They can be compiled by TorchScript, which reads annotations as objects: no ``from __future__ import annotations`` here.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from qfx import dtypes
from qfx.errors import ConfigError
from qfx.observers import with_args


class FakeQuantizeBase(ABC, nn.Module):
    """Base of modules that round a tensor to the values its integers will have, and let gradients through.

    A subclass implements ``forward`` and ``calculate_qparams``.

    Attributes:
        fake_quant_enabled: buffer of one ``torch.uint8``, 1 (default) where ``forward`` rounds; 0 where it returns its
            input.
        observer_enabled: the same for gathering statistics.
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers, so that state dicts carry them, scripts can change them, and replicas share them.
        self.register_buffer("fake_quant_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("observer_enabled", torch.tensor([1], dtype=torch.uint8))

    @abstractmethod
    def forward(self, X: Tensor) -> Tensor:
        """Observe and round ``X``, as far as the switches say."""

    @abstractmethod
    def calculate_qparams(self, **kwargs: Any) -> Any:
        """Return ``(scale, zero_point)``."""

    @torch.jit.export
    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Round from now on."""
        self.fake_quant_enabled[0] = 1 if enabled else 0

    @torch.jit.export
    def disable_fake_quant(self) -> None:
        """Return inputs as they are from now on."""
        self.enable_fake_quant(False)

    @torch.jit.export
    def enable_observer(self, enabled: bool = True) -> None:
        """Gather statistics from now on."""
        self.observer_enabled[0] = 1 if enabled else 0

    @torch.jit.export
    def disable_observer(self) -> None:
        """Keep scale and zero point as they are from now on."""
        self.enable_observer(False)

    with_args = classmethod(with_args)


def made_observer(observer: Any, quant_min: int | None, quant_max: int | None, arguments: dict[str, Any]) -> Any:
    """Make the observer inside a fake-quantize module; a range of codes that is asked for is checked first.

    Raises:
        ConfigError: a range without 0, or beyond the dtype.
    """
    if quant_min is None or quant_max is None:
        return observer(**arguments)
    known = getattr(getattr(observer, "p", None), "keywords", {})
    dtype = arguments.get("dtype", known.get("dtype", torch.quint8))
    low, high = dtypes.code_range(dtype)
    if quant_min > quant_max:
        raise ConfigError(f"quant_min must be less than or equal to quant_max; got {quant_min} and {quant_max}")
    for name, code in (("quant_min", quant_min), ("quant_max", quant_max)):
        if not low <= code <= high:
            raise ConfigError(f"{name} out of bound: {code} is no code of {dtype}, which has {low}..{high}")
    return observer(**arguments, quant_min=quant_min, quant_max=quant_max)
