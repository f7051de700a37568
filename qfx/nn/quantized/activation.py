"""Quantized activations: ``torch.quint8`` in, ``torch.quint8`` with the given scale and zero point out.

All keep these two in the state dict. In the original ELU, Sigmoid, Softmax and PReLU do not; such state dicts load, and
leave them as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import _get_softmax_dim  # type: ignore[attr-defined]

from qfx.frames import warn
from qfx.kernels import codes
from qfx.kernels.plain import put_together, take_apart
from qfx.nn.errors import ModuleTypeError
from qfx.nn.quantized.requantizing import BufferedQParams, SavedQParams
from qfx.nn.quantized.saved import Loading
from qfx.observers import MinMaxObserver


class ReLU6(nn.ReLU):
    """Clamp to 0..6 on the codes; scale and zero point stay those of the input.

    Args:
        inplace: write into the input. Default False.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Clamp."""
        clamped = codes.clamp(input, 0.0, 6.0)
        return input.copy_(clamped) if self.inplace else clamped

    def _get_name(self) -> str:
        return "QuantizedReLU6"

    @staticmethod
    def from_float(mod: Any, use_precomputed_fake_quant: bool = False) -> ReLU6:
        """Take over ``inplace`` from an ``nn.ReLU6``."""
        return ReLU6(mod.inplace)


class Hardswish(BufferedQParams, nn.Hardswish):
    """Quantized ``nn.Hardswish``.

    Args:
        scale, zero_point: of the output.
        device, dtype: of the two buffers.
    """

    def __init__(self, scale: float, zero_point: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._register_qparams(scale, zero_point, device, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute x * relu6(x + 3) / 6."""
        return torch.ops.quantized.hardswish(input, float(self.scale), int(self.zero_point))  # type: ignore[no-any-return]

    def _get_name(self) -> str:
        return "QuantizedHardswish"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> Hardswish:
        return cls(scale, zero_point)


class ELU(SavedQParams, nn.ELU):
    """Quantized ``nn.ELU``.

    Args:
        scale, zero_point: of the output.
        alpha: limit of the negative side, with its sign changed. Default 1.0.
    """

    def __init__(self, scale: float, zero_point: int, alpha: float = 1.0) -> None:
        super().__init__(alpha)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute x, or alpha * (exp(x) - 1) below zero."""
        return torch.ops.quantized.elu(input, self.scale, self.zero_point, self.alpha)  # type: ignore[no-any-return]

    def _get_name(self) -> str:
        return "QuantizedELU"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> ELU:
        return cls(scale, zero_point, module.alpha)


class LeakyReLU(BufferedQParams, nn.LeakyReLU):
    """Quantized ``nn.LeakyReLU``.

    Args:
        scale, zero_point: of the output.
        negative_slope: factor below zero. Default 0.01.
        inplace: kept from the float module; the kernel makes a new tensor.
        device, dtype: of the two buffers.
    """

    def __init__(
        self,
        scale: float,
        zero_point: int,
        negative_slope: float = 1e-2,
        inplace: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(negative_slope, inplace)
        self._register_qparams(scale, zero_point, device, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute x, or negative_slope * x below zero."""
        return torch.ops.quantized.leaky_relu(  # type: ignore[no-any-return]
            input, self.negative_slope, self.inplace, float(self.scale), int(self.zero_point)
        )

    def _get_name(self) -> str:
        return "QuantizedLeakyReLU"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> LeakyReLU:
        return cls(scale, zero_point, module.negative_slope, module.inplace)


class Sigmoid(SavedQParams, nn.Sigmoid):
    """Quantized ``nn.Sigmoid``.

    Args:
        output_scale, output_zero_point: of the output, usually 1/256 and 0.
    """

    _SAVED = ("output_scale", "output_zero_point")

    def __init__(self, output_scale: float, output_zero_point: int) -> None:
        super().__init__()
        self.output_scale, self.output_zero_point = output_scale, output_zero_point

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute 1 / (1 + exp(-x))."""
        return torch.ops.quantized.sigmoid(input, self.output_scale, self.output_zero_point)  # type: ignore[no-any-return]

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> Sigmoid:
        return cls(scale, zero_point)


class Softmax(SavedQParams, nn.Softmax):
    """Quantized ``nn.Softmax``.

    Args:
        dim: the slices that sum to one; None chooses as ``torch.nn.functional.softmax`` does, with its warning.
        scale, zero_point: of the output. Default 1.0 and 0.
    """

    def __init__(self, dim: int | None = None, scale: float = 1.0, zero_point: int = 0) -> None:
        super().__init__(dim)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute exp(x) / sum(exp(x)) along ``dim``."""
        dim = self.dim
        if dim is None:
            dim = _get_softmax_dim("softmax", input.dim(), 3)
        return torch.ops.quantized.softmax(input, dim, self.scale, self.zero_point)  # type: ignore[no-any-return]

    def _get_name(self) -> str:
        return "QuantizedSoftmax"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> Softmax:
        return cls(module.dim, scale, zero_point)


class PReLU(SavedQParams):
    """Quantized ``nn.PReLU``.

    Args:
        output_scale, output_zero_point: of the output.
        num_parameters: slopes, 1 or one per channel. Default 1.

    ``weight`` is a ``torch.quint8`` tensor; a new module has slopes of zero until ``set_weight``.
    """

    def __init__(self, output_scale: float, output_zero_point: int, num_parameters: int = 1) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.scale, self.zero_point = output_scale, output_zero_point
        self.set_weight(torch.quantize_per_tensor(torch.zeros(num_parameters), 1.0, 0, torch.quint8))

    def __getstate__(self) -> dict[str, Any]:
        """The ``__dict__``, the slopes as plain tensors."""
        return self.__dict__ | {"weight": take_apart(self.weight)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and put the slopes together."""
        super().__setstate__(state | {"weight": put_together(state["weight"])})

    def set_weight(self, w: torch.Tensor) -> None:
        """Replace the slopes by another ``torch.quint8`` tensor."""
        self.weight = w

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        weight = loading.take("weight", self.weight)
        if loading.fits("weight", weight, self.weight.shape):
            self.set_weight(weight)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute x, or weight * x below zero."""
        return codes.prelu(input, self.weight, self.scale, self.zero_point)

    def _get_name(self) -> str:
        return "QuantizedPReLU"

    @classmethod
    def _build(cls, module: Any, scale: float, zero_point: int) -> PReLU:
        if getattr(module, "qconfig", None) is None:
            raise ModuleTypeError(
                f"{cls.__name__} needs the qconfig of the nn.PReLU to quantize its slopes; set one and prepare"
            )
        slopes = module.weight.detach().float()
        observer = module.qconfig.weight()
        observer(slopes)
        if observer.dtype not in (torch.quint8, torch.uint8):
            warn(f"PReLU's weight observer should have dtype quint8 but got {observer.dtype}")
        return cls._of(slopes, observer, scale, zero_point)

    @classmethod
    def of_slopes(cls, slopes: torch.Tensor, scale: float, zero_point: int) -> PReLU:
        """A module of float slopes, one or ``(C,)``, quantized to ``torch.quint8`` in their own range."""
        observer = MinMaxObserver()
        observer(slopes)
        return cls._of(slopes, observer, scale, zero_point)

    @classmethod
    def _of(cls, slopes: torch.Tensor, observer: Any, scale: float, zero_point: int) -> PReLU:
        weight_scale, weight_zero_point = observer.calculate_qparams()
        made = cls(scale, zero_point, slopes.numel())
        made.set_weight(torch.quantize_per_tensor(slopes, float(weight_scale), int(weight_zero_point), torch.quint8))
        return made
