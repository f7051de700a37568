"""The dynamically quantized linear layer.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn

from qfx.nn.qat.dynamic import Linear as QATLinear
from qfx.nn.quantized.linear import Linear as StaticLinear
from qfx.nn.quantized.module import empty
from qfx.nn.weights import DynamicWeights

_ops = torch.ops.quantized


class Linear(StaticLinear):
    """``nn.Linear`` on floats whose product is done in integers: (..., in) to (..., out), both float32.

    The input is quantized in every call, by its own smallest and largest value, to 7 bits (8 with qnnpack); the weight
    is int8, or half floats that are multiplied as floats.

    Args:
        in_features, out_features: sizes.
        bias_: whether there is a (float) bias.
        dtype: of the weight, ``torch.qint8`` or ``torch.float16``.
        engine: who packs; None for the engine selected in torch whenever the weight is set.

    A new module has zero weights.

    Attributes:
        version: that of the state the weights came from. Before version 4 inputs had 8 bits, and a module with such a
            state computes as it did then.

    Example:
        >>> Linear(20, 30)(torch.zeros(128, 20)).shape
        torch.Size([128, 30])
    """

    _version: Any = 4
    _FLOAT_MODULE: Any = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, QATLinear)
    _OP: Any = _ops.linear_dynamic
    _HALF_OP: Any = _ops.linear_dynamic_fp16

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias_, dtype, engine=engine)
        self.version: int | None = 4

    def _bind(self) -> None:
        super()._bind()
        self._half_op = self._HALF_OP

    def _get_name(self) -> str:
        return f"DynamicQuantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Sizes, dtype and scheme."""
        text = f"in_features={self.in_features}, out_features={self.out_features}, dtype={self._packed_params.dtype}"
        return f"{text}, qscheme={self.weight().qscheme()}" if self._packed_params.dtype == torch.qint8 else text

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply a float input of shape (..., in_features)."""
        if self._packed_params.dtype == torch.qint8:
            y = self._op(x, self._packed_params._packed_params, self._seven_bits())
        else:
            y = self._half_op(x, self._packed_params._packed_params)
        return y.to(x.dtype)  # type: ignore[no-any-return]

    def _seven_bits(self) -> bool:
        # qnnpack has 8 bits whatever it is told, and warns if it is told otherwise.
        return self.version is not None and self.version >= 4 and self._packed_params.engine != "qnnpack"

    def __getstate__(self) -> dict[str, Any]:
        """The whole ``__dict__`` but the operators, which cannot be pickled."""
        return {name: value for name, value in super().__getstate__().items() if name != "_half_op"}

    # State dict: that of the static layer; version 4 says that inputs have 7 bits.

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        # Kept, and saved again: the numbers of a layer must not change on the way through a second state dict.
        self.version = local_metadata.get("version")
        self.__dict__.pop("_version", None)
        if self.version != type(self)._version:
            self._version = self.version
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False, *, engine: str | None = None) -> Any:
        """Quantize the weight of a float layer, fused pair or ``qat.dynamic`` layer.

        Args:
            mod: a module of the class this one replaces with a ``qconfig``, whose weight observer says how; None
                for int8 per tensor. It is not changed.
            use_precomputed_fake_quant: accepted for the original's sake; the weight is always looked at.
            engine: who packs the weight; None for the engine selected in torch.

        Raises:
            ModuleTypeError: another class, or no qconfig.
            WeightTypeError: the weight observer is neither one of int8 nor of float16.
        """
        weights = DynamicWeights(cls, mod, cls._float_modules())
        linear = weights.module
        return cls._of(linear, weights.quantize(linear.weight), weights.dtype, engine)

    @classmethod
    def from_reference(cls, ref_qlinear: Any, *, engine: str | None = None) -> Any:  # type: ignore[override]
        """Pack a reference layer (or a fused container that starts with one).

        Raises:
            KernelError: the engine does not take this weight.
        """
        reference = cls._weighted_part(ref_qlinear)
        return cls._of(reference, reference.get_quantized_weight(), reference.weight_dtype, engine)

    @classmethod
    def _of(cls, linear: Any, weight: torch.Tensor, dtype: torch.dtype, engine: str | None) -> Any:
        with empty():
            made = cls(linear.in_features, linear.out_features, linear.bias is not None, dtype, engine=engine)
        made._packed_params._hold(weight, linear.bias)
        return made
