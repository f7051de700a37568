"""Arithmetic as modules, so that eager mode has a place for the observer of each result.

``FloatFunctional`` observes its results, ``FXFloatFunctional`` leaves that to the graph, ``QFunctional`` computes on
integers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from qfx.errors import QfxError
from qfx.nn.errors import ModuleTypeError
from qfx.nn.quantized.saved import SavedScale
from qfx.nn.weights import output_qparams


class CalledDirectlyError(QfxError, RuntimeError):
    """A functional module was called as if it were a layer."""


class _Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Not for use: call ``add``, ``mul`` or another method instead."""
        if is_scripting():
            raise RuntimeError("FloatFunctional is not intended to use the 'forward'")
        else:
            raise CalledDirectlyError(
                f"{type(self).__name__} is not intended to use the 'forward'. "
                "Please use the underlying operation, such as .add(x, y)"
            )


class _FloatOps(_Functional):
    """Float arithmetic; each result but those with a scalar passes through ``_observed``."""

    def _observed(self, result: Tensor) -> Tensor:
        return result

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.add(x, y)``."""
        return self._observed(torch.add(x, y))

    def add_scalar(self, x: Tensor, y: float) -> Tensor:
        """``torch.add(x, y)`` with a number; its qparams follow from those of ``x``."""
        return torch.add(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.mul(x, y)``."""
        return self._observed(torch.mul(x, y))

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        """``torch.mul(x, y)`` with a number; its qparams follow from those of ``x``."""
        return torch.mul(x, y)

    def cat(self, x: list[Tensor], dim: int = 0) -> Tensor:
        """``torch.cat(x, dim)``."""
        return self._observed(torch.cat(x, dim=dim))

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """``relu(x + y)``, observed after the clamp."""
        return self._observed(torch.nn.functional.relu(torch.add(x, y)))

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.matmul(x, y)``."""
        return self._observed(torch.matmul(x, y))


class FloatFunctional(_FloatOps):
    """Float arithmetic with an observer of its own, for eager mode; one instance per place of use.

    Example:
        >>> FloatFunctional().add(torch.tensor(3.0), torch.tensor(4.0))
        tensor(7.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.activation_post_process = nn.Identity()

    def _observed(self, result: Tensor) -> Tensor:
        return self.activation_post_process(result)  # type: ignore[no-any-return]


class FXFloatFunctional(_FloatOps):
    """What replaces a :class:`FloatFunctional` before a graph is captured: the graph has its own observers."""


class QFunctional(_Functional, SavedScale):
    """Arithmetic on quantized tensors, with one output ``scale`` (1.0) and ``zero_point`` (0), both in the state dict.

    Example:
        >>> q = torch.quantize_per_tensor(torch.tensor([3.0]), 1.0, 0, torch.quint8)
        >>> QFunctional().add(q, q).int_repr()
        tensor([6], dtype=torch.uint8)
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.zero_point = 0
        self.activation_post_process = nn.Identity()

    def extra_repr(self) -> str:
        """Output qparams."""
        return f"scale={self.scale}, zero_point={self.zero_point}"

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.ops.quantized.add``."""
        r = torch.ops.quantized.add(x, y, scale=self.scale, zero_point=self.zero_point)
        return self.activation_post_process(r)  # type: ignore[no-any-return]

    def add_scalar(self, x: Tensor, y: float) -> Tensor:
        """``torch.ops.quantized.add_scalar``; scale and zero point follow from those of ``x``."""
        return torch.ops.quantized.add_scalar(x, y)  # type: ignore[no-any-return]

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.ops.quantized.mul``."""
        r = torch.ops.quantized.mul(x, y, scale=self.scale, zero_point=self.zero_point)
        return self.activation_post_process(r)  # type: ignore[no-any-return]

    def mul_scalar(self, x: Tensor, y: float) -> Tensor:
        """``torch.ops.quantized.mul_scalar``; scale and zero point follow from those of ``x``."""
        return torch.ops.quantized.mul_scalar(x, y)  # type: ignore[no-any-return]

    def cat(self, x: list[Tensor], dim: int = 0) -> Tensor:
        """``torch.ops.quantized.cat``; requantizes what has another scale."""
        r = torch.ops.quantized.cat(x, scale=self.scale, zero_point=self.zero_point, dim=dim)
        return self.activation_post_process(r)  # type: ignore[no-any-return]

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.ops.quantized.add_relu``."""
        r = torch.ops.quantized.add_relu(x, y, scale=self.scale, zero_point=self.zero_point)
        return self.activation_post_process(r)  # type: ignore[no-any-return]

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        """``torch.ops.quantized.matmul``."""
        return torch.ops.quantized.matmul(x, y, scale=self.scale, zero_point=self.zero_point)  # type: ignore[no-any-return]

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> QFunctional:
        """Make it from an observed :class:`FloatFunctional`.

        Raises:
            ModuleTypeError: another class, or no observer.
        """
        if type(mod) is not FloatFunctional:
            raise ModuleTypeError(
                f"QFunctional.from_float expects an instance of FloatFunctional, but got {type(mod).__name__}"
            )
        made = cls()
        made.scale, made.zero_point = output_qparams(mod, cls.__name__)
        return made
