"""Where a model of eager mode enters and leaves integers: places for an observer, which conversion fills.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn


class _Stub(nn.Module):
    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig:
            self.qconfig = qconfig

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``."""
        return x


class QuantStub(_Stub):
    """Returns its input; observed during calibration, and ``nn.quantized.Quantize`` after conversion.

    Args:
        qconfig: how the tensor is observed. By default what the surrounding module has.

    Example:
        >>> QuantStub()(torch.ones(2))
        tensor([1., 1.])
    """


class DeQuantStub(_Stub):
    """Returns its input; ``nn.quantized.DeQuantize`` after conversion.

    Args:
        qconfig: anything but None lets the stub be converted. By default what the surrounding module has.
    """


class QuantWrapper(nn.Module):
    """A module between a :class:`QuantStub` and a :class:`DeQuantStub`: floats in and out, integers inside.

    Args:
        module: takes and returns one tensor. The stubs take its ``qconfig``, if it has one.

    Attributes:
        quant, dequant: the stubs.
        module: what was wrapped.

    Example:
        >>> QuantWrapper(nn.Linear(4, 2))(torch.zeros(1, 4)).shape
        torch.Size([1, 2])
    """

    # No annotations of these: TorchScript would take them for types of attributes.

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        qconfig = getattr(module, "qconfig", None)
        self.quant = QuantStub(qconfig)
        self.dequant = DeQuantStub(qconfig)
        self.module = module
        self.train(module.training)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Quantize ``X``, call the module, dequantize its result."""
        return self.dequant(self.module(self.quant(X)))  # type: ignore[no-any-return]


_TRACED_THROUGH = (nn.Sequential, QuantStub, DeQuantStub, QuantWrapper)


def is_layer(module: nn.Module) -> bool:
    """Whether a tracer keeps a module whole: it is one of `qfx.nn`, but no container.

    Nor is it a stub, which does nothing in a graph, where every value can have an observer of its own.
    """
    return module.__module__.startswith("qfx.nn") and not isinstance(module, _TRACED_THROUGH)
