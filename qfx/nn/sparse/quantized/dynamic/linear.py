"""The dynamically quantized linear layer on a weight with blocks of zeros.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from qfx.kernels.packing import packed_by
from qfx.nn.errors import WeightTypeError
from qfx.nn.sparse.quantized.linear import SparseLinear
from qfx.nn.sparse.quantized.utils import LinearBlockSparsePattern
from qfx.nn.weights import DynamicWeights


class Linear(SparseLinear):
    """``nn.Linear`` on floats, with a quantized weight that has blocks of zeros: (..., in) to (..., out).

    qnnpack alone has the kernel, which asks for the engine selected in torch even when it runs: the module selects its
    own for the call, a script or a graph traced through it runs while torch has qnnpack selected.

    Args:
        in_features, out_features: sizes.
        row_block_size, col_block_size: the weight has blocks of zeros of that size; 1 and 4, or 8 and 1.
        bias: whether there is a (float) bias.
        dtype: of the weight, ``torch.qint8``.

    A new module has zero weights.

    Raises:
        UnsupportedError: another dtype.
        KernelError: the engine does not take such blocks.
    """

    _ENGINE = "qnnpack"
    _op_type = "sparse_dynamic"

    def _get_name(self) -> str:
        return "SparseQuantizedDynamicLinear"

    def extra_repr(self) -> str:
        """Sizes and scheme."""
        return f"in_features={self.in_features}, out_features={self.out_features}, qscheme={self.weight().qscheme()}"

    def _compute(self, x: Tensor) -> Tensor:
        return torch.ops.sparse.qlinear_dynamic(x, self._packed_params._packed_params)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply a float input of shape (..., in_features), quantized here to 8 bits."""
        if is_scripting():
            return self._compute(x)
        else:
            with packed_by(self._packed_params.engine):
                return self._compute(x)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "op_type"] = self._op_type

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "op_type", None)  # a word for the reader of a file
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize the weight of an ``nn.Linear`` that was made sparse.

        Args:
            mod: has a ``qconfig``; one with a ``mask`` has its weight multiplied by that. The block sizes are those
                of :class:`LinearBlockSparsePattern`. It is not changed.
            use_precomputed_fake_quant: accepted for the original's sake; the weight is always looked at.

        Raises:
            ModuleTypeError: another class, no ``qconfig``, or a weight zero point is not 0.
            WeightTypeError: the weight observer is not one of int8.
        """
        weights = DynamicWeights(cls, mod, (nn.Linear,))
        if weights.dtype != torch.qint8:
            raise WeightTypeError(f"{cls.__name__} stores torch.qint8; the weight observer has dtype {weights.dtype}")
        mask = getattr(mod.qconfig, "mask", None)
        weight = weights.quantize(mod.weight if mask is None else mod.weight * mask)
        return cls._of(mod, weight, mod.bias, LinearBlockSparsePattern.block_size())
