"""Quantized batch norm that stands alone (one after a convolution is folded into it).

The kernels turn the statistics into one float scale and shift per channel and requantize once.
"""

from typing import Any

import torch
from torch import nn

from qfx.nn.intrinsic import _FusedModule
from qfx.nn.quantized.module import check_rank


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Parameters and statistics of the float module, ``scale`` and ``zero_point`` as buffers."""

    __constants__ = [*nn.modules.batchnorm._BatchNorm.__constants__, "_rank", "_layout"]  # noqa: RUF012
    scale: torch.Tensor
    zero_point: torch.Tensor
    _RANK = 0
    _LAYOUT = ""
    _OP: Any = None

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(num_features, eps, momentum, True, True, device=device, dtype=dtype)
        self.register_buffer("scale", torch.tensor(1.0, device=device, dtype=dtype))
        self.register_buffer("zero_point", torch.tensor(0, device=device))
        self._bind()

    def _bind(self) -> None:
        # On the instance, not the class: TorchScript finds operators only there.
        self._op, self._rank, self._layout = self._OP, self._RANK, self._LAYOUT

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize a ``torch.quint8`` input with the running statistics."""
        check_rank(input, self._rank, self._layout)
        return self._op(  # type: ignore[no-any-return]
            input,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            float(self.scale),
            int(self.zero_point),
        )

    def __getstate__(self) -> dict[str, Any]:
        """The whole ``__dict__`` but the operator, which cannot be pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_op"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what pickling left out."""
        super().__setstate__(state)
        self._bind()

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize an observed ``nn.BatchNorm`` (or its fusion with a ReLU); parameters are shared with it."""
        scale, zero_point = mod.activation_post_process.calculate_qparams()
        return cls._from(mod, scale, zero_point)

    @classmethod
    def from_reference(cls, bn: Any, output_scale: Any, output_zero_point: Any) -> Any:
        """Make the quantized module from a float one (or its fusion with a ReLU) and the output's qparams."""
        return cls._from(bn, output_scale, output_zero_point)

    @classmethod
    def _from(cls, module: Any, scale: Any, zero_point: Any) -> Any:
        bn: Any = module[0] if isinstance(module, _FusedModule) else module
        made = cls(bn.num_features, bn.eps, bn.momentum)
        made.weight, made.bias = bn.weight, bn.bias
        made.running_mean, made.running_var = bn.running_mean, bn.running_var
        made.scale = torch.as_tensor(scale, dtype=torch.float)
        made.zero_point = torch.as_tensor(zero_point)
        return made


class BatchNorm2d(_BatchNorm):
    """Quantized ``nn.BatchNorm2d``: (N, C, H, W) of ``torch.quint8`` in and out, always in evaluation mode."""

    _RANK = 4
    _LAYOUT = "(N, C, H, W)"
    _OP = torch.ops.quantized.batch_norm2d


class BatchNorm3d(_BatchNorm):
    """Quantized ``nn.BatchNorm3d``: (N, C, D, H, W) of ``torch.quint8`` in and out, always in evaluation mode."""

    _RANK = 5
    _LAYOUT = "(N, C, D, H, W)"
    _OP = torch.ops.quantized.batch_norm3d
