"""Quantized linear layers.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn
from torch._jit_internal import is_scripting

from qfx.kernels.packing import PackedSpec
from qfx.nn.errors import WeightTypeError
from qfx.nn.quantized.module import (
    PackedModule,
    WeightedQuantizedModule,
    blank_weight,
    empty,
    made_empty,
)
from qfx.nn.quantized.saved import Loading, Saved, SavedScale
from qfx.nn.weights import observed_weight, output_qparams


class LinearPackedParams(PackedModule, Saved):
    """Weight and bias of a linear layer; a module of its own because the state dict has always had that level.

    Args:
        dtype: ``torch.qint8``, or ``torch.float16`` for half-float weights under dynamic quantization.
        engine: who packs; None for the engine selected in torch (half floats: always fbgemm, which alone has them).

    Raises:
        WeightTypeError: another dtype.
    """

    __constants__ = ["_engine_given", "dtype", "engine"]  # noqa: RUF012
    _version = 3
    _bias: torch.Tensor | None

    def __init__(self, dtype: torch.dtype = torch.qint8, *, engine: str | None = None) -> None:
        super().__init__()
        if dtype not in (torch.qint8, torch.float16):
            raise WeightTypeError(
                f"Unsupported dtype specified for quantized Linear! It stores torch.qint8 or torch.float16, not {dtype}"
            )
        self.dtype = dtype
        self._choose_engine(engine)
        if made_empty():
            return
        self._hold(blank_weight(1, 1) if dtype == torch.qint8 else torch.zeros(1, 1), None)

    def _packed_spec(self) -> PackedSpec:
        if self.dtype == torch.qint8:
            return PackedSpec("linear", self._weight, self._bias, engine=self.engine)
        return PackedSpec("linear_fp16", self._weight, self._bias, engine="fbgemm")

    def _hold(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        # What half floats cannot say is lost at packing; keeping the rounded values makes state and kernel agree.
        super()._hold(weight if self.dtype == torch.qint8 else weight.half().float(), bias)

    @torch.jit.export
    def set_weight_bias(self, w: torch.Tensor, b: torch.Tensor | None) -> None:
        """Replace weight and bias, and pack them."""
        if is_scripting():
            self._weight = w
            self._bias = b
            self._script_repack()
        else:
            super().set_weight_bias(w, b)

    @torch.jit.export
    def _weight_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._weight, self._bias

    def _script_repack(self) -> None:
        if self.dtype == torch.qint8:
            self._packed_params = torch.ops.quantized.linear_prepack(self._weight, self._bias)
        else:
            self._packed_params = torch.ops.quantized.linear_prepack_fp16(self._weight, self._bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Do nothing: the layer that owns this module computes."""
        return x

    def __repr__(self) -> str:
        return repr(self._weight_bias())

    # The keys tell the versions apart, also in a state dict that lost its metadata to a filter.
    # State dict, version 3: dtype and _packed_params = (weight, bias). Version 2 had weight and bias apart, version 1
    # no dtype.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "dtype"] = self.dtype
        destination[prefix + "_packed_params"] = self._weight_bias()

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        self.dtype = loading.take("dtype", None) if "dtype" in loading else torch.qint8
        if "weight" in loading:
            weight = loading.take("weight", self._weight)
            bias = loading.take("bias", self._bias)
        else:
            weight, bias = loading.take("_packed_params", self._weight_bias())
        if loading.fits("_packed_params", weight, self._weight.shape):
            self._hold(weight, bias)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
        """The state without the packed weight."""
        if is_scripting():
            return (self._weight, self._bias, self.training)
        else:
            return self._python_state()  # type: ignore[return-value]

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, torch.Tensor | None, bool]) -> None:
        """Take the state and pack the weight for this machine."""
        if is_scripting():
            self._weight = state[0]
            self._bias = state[1]
            self.training = state[2]
            self._script_repack()
        else:
            self._restore(state)  # type: ignore[arg-type]


class Linear(WeightedQuantizedModule, SavedScale):
    """Quantized ``nn.Linear``: (..., in) of ``torch.quint8`` to (..., out) of ``torch.quint8``.

    Args:
        in_features, out_features: sizes.
        bias_: whether there is a (float) bias.
        dtype: of the weight, ``torch.qint8``.
        engine: who packs; None for the engine selected in torch whenever the weight is set.

    A new module has zero weights, ``scale`` 1.0 and ``zero_point`` 0.

    Example:
        >>> m = Linear(20, 30)
        >>> m.set_weight_bias(qweight, bias)  # doctest: +SKIP
        >>> m.scale, m.zero_point = 0.05, 128
    """

    _version = 3
    _FLOAT_MODULE: Any = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)
    _OP: Any = torch.ops.quantized.linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._packed_params = LinearPackedParams(dtype, engine=engine)
        self.scale, self.zero_point = 1.0, 0
        self._bind()
        if made_empty():
            return
        blank = (
            blank_weight(out_features, in_features) if dtype == torch.qint8 else torch.zeros(out_features, in_features)
        )
        self._packed_params._hold(blank, torch.zeros(out_features) if bias_ else None)

    def _bind(self) -> None:
        # On the instance, not the class: TorchScript finds operators only there.
        self._op = self._OP

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Sizes and qparams."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}, "
            f"zero_point={self.zero_point}, qscheme={self.weight().qscheme()}"
        )

    def __repr__(self) -> str:
        return f"{self._get_name()}({self.extra_repr()})"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply a ``torch.quint8`` input of shape (..., in_features)."""
        return self._op(x, self._packed_params._packed_params, self.scale, self.zero_point)  # type: ignore[no-any-return]

    @property
    def engine(self) -> str:
        """The engine the weight is packed by."""
        return self._packed_params.engine

    def _weight_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._packed_params._weight_bias()

    def weight(self) -> torch.Tensor:
        """The int8 weight, a quantized tensor of shape (out_features, in_features)."""
        return self._weight_bias()[0]

    def bias(self) -> torch.Tensor | None:
        """The float bias, or None."""
        return self._weight_bias()[1]

    def set_weight_bias(self, w: torch.Tensor, b: torch.Tensor | None) -> None:
        """Replace the weight (``torch.qint8``) and the bias (float, or None), and pack them."""
        self._packed_params.set_weight_bias(w, b)

    def __getstate__(self) -> dict[str, Any]:
        """The whole ``__dict__`` but the operator, which cannot be pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_op"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; the weight packs itself in its own module."""
        super().__setstate__(state)
        self._bind()

    # State dict, version 3: scale, zero_point, _packed_params.*; version 1 had weight and bias at this level.

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        for name in ("weight", "bias"):
            if name in loading:
                loading.state_dict[f"{loading.prefix}_packed_params.{name}"] = loading.take(name, None)

    @classmethod
    def _like(cls, linear: Any, container: Any, engine: str | None) -> Any:
        """A blank module with the sizes of a float or reference layer; ``container`` is what it came in, for more
        arguments."""
        return cls(linear.in_features, linear.out_features, linear.bias is not None, engine=engine)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False, *, engine: str | None = None) -> Any:
        """Quantize an observed float layer (or fused pair, or QAT module).

        Args:
            mod: a module of the class this one replaces, with ``qconfig`` and a calibrated
                ``activation_post_process``; or its QAT form with ``weight_fake_quant``. It is not changed.
            use_precomputed_fake_quant: take the weight observer's range as it is.
            engine: who packs the weight; None for the engine selected in torch.

        Raises:
            ModuleTypeError: another class, or no qconfig or observer.
            ConfigError: the weight observer is not one of int8.
        """
        linear, weight, bias = observed_weight(cls, mod, cls._float_modules(), use_precomputed_fake_quant)
        with empty():
            made = cls._like(linear, mod, engine)
        made._packed_params._hold(weight, bias)
        made.scale, made.zero_point = output_qparams(mod, cls.__name__)
        return made

    @classmethod
    def from_reference(
        cls, ref_qlinear: Any, output_scale: float, output_zero_point: int, *, engine: str | None = None
    ) -> Any:
        """Pack a reference layer (or a fused container that starts with one).

        Args:
            ref_qlinear: a module of ``qfx.nn.quantized.reference``.
            output_scale, output_zero_point: of the output; numbers or tensors of one element.
            engine: who packs the weight; None for the engine selected in torch.

        Raises:
            KernelError: the engine does not take this weight.
        """
        reference = cls._weighted_part(ref_qlinear)
        with empty():
            made = cls._like(reference, ref_qlinear, engine)
        made._packed_params._hold(reference.get_quantized_weight(), reference.bias)
        made.scale, made.zero_point = float(output_scale), int(output_zero_point)
        return made
