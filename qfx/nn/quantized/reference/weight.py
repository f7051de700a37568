"""Float modules whose weight passes through its integers on every call: the meaning of a quantized weight, on any
backend.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._jit_internal import is_scripting
from torch.overrides import has_torch_function_unary

from qfx.errors import ConfigError
from qfx.kernels.decomposed import registered
from qfx.quick import QuickAttributes, start

_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
_SCHEMES = (None, torch.per_tensor_affine, *_PER_CHANNEL)
# The storage of each quantized dtype and its range of codes; the plain dtypes stand for themselves.
STORAGE = {
    torch.quint8: (torch.uint8, 0, 255),
    torch.qint8: (torch.int8, -128, 127),
    torch.qint32: (torch.int32, -(2**31), 2**31 - 1),
    torch.quint4x2: (torch.uint8, 0, 15),
    torch.uint8: (torch.uint8, 0, 255),
    torch.int8: (torch.int8, -128, 127),
    torch.int32: (torch.int32, -(2**31), 2**31 - 1),
}


def along_axis(qparam: torch.Tensor, like: torch.Tensor, per_channel: bool, axis: int) -> torch.Tensor:
    """A scale or zero point in a shape that broadcasts with the weight."""
    if not per_channel:
        return qparam
    shape = [1] * like.dim()
    shape[axis] = -1
    return qparam.reshape(shape)


def plain_codes(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    per_channel: bool,
    axis: int,
    low: int,
    high: int,
    storage: torch.dtype,
) -> torch.Tensor:
    """The codes of a weight as a plain integer tensor."""
    # Dividing by the scale and multiplying by its inverse differ by an ulp, and so sometimes by a code; the original
    # multiplies.
    inverse = 1.0 / along_axis(scale, weight, per_channel, axis)
    codes = torch.round(weight * inverse) + along_axis(zero_point, weight, per_channel, axis)
    return codes.clamp(low, high).to(storage)


def as_operators(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    per_channel: bool,
    axis: int,
    low: int,
    high: int,
    storage: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes and the values of a weight by ``torch.ops.quantized_decomposed``: what exporters read in a graph."""
    operators = registered()
    if per_channel:
        told: tuple[Any, ...] = (scale, zero_point, axis, low, high, storage)
        codes = operators.quantize_per_channel(weight, *told)
        return codes, operators.dequantize_per_channel(codes, *told)
    told = (scale, zero_point, low, high, storage)
    codes = operators.quantize_per_tensor(weight, *told)
    return codes, operators.dequantize_per_tensor(codes, *told)


def quantized_weight(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    quantized: bool,
    plain: bool,
    per_channel: bool,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
    storage: torch.dtype,
) -> torch.Tensor:
    """The weight as integers: a quantized tensor, or a ``plain`` one; cast to ``dtype`` where it is not
    ``quantized``."""
    if not quantized:
        return weight.to(dtype)
    if plain:
        return plain_codes(weight, scale, zero_point, per_channel, axis, low, high, storage)
    if high - low < 255 and dtype != torch.quint4x2:  # torch knows the ends of the dtype alone
        shape = [1] * weight.dim()
        if per_channel:
            shape[axis] = -1
        step, zero = scale.reshape(shape), zero_point.reshape(shape)
        weight = torch.minimum(torch.maximum(weight, (low - zero) * step), (high - zero) * step)
    if per_channel:
        return torch.quantize_per_channel(weight, scale, zero_point, axis, dtype)
    return torch.quantize_per_tensor(weight, scale, zero_point, dtype)


def float_weight(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    quantized: bool,
    plain: bool,
    per_channel: bool,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
    storage: torch.dtype,
) -> torch.Tensor:
    """The weight after a round trip through what :func:`quantized_weight` gives."""
    if quantized and plain:
        codes = plain_codes(weight, scale, zero_point, per_channel, axis, low, high, storage)
        offset = codes.to(torch.float) - along_axis(zero_point, codes, per_channel, axis)
        return offset * along_axis(scale, codes, per_channel, axis)
    stored = quantized_weight(weight, scale, zero_point, quantized, plain, per_channel, axis, low, high, dtype, storage)
    return stored.dequantize() if quantized else stored.to(weight.dtype)


class ReferenceQuantizedModule(QuickAttributes, torch.nn.Module):
    """Mixin for float modules with a ``weight``: holds how that weight is quantized.

    ``weight_qparams`` is a dict of ``qscheme`` (None, ``per_tensor_affine``, ``per_channel_affine`` or
    ``per_channel_affine_float_qparams``), ``dtype`` (a quantized or plain integer dtype, or a float one for a weight
    that is only cast), ``scale``, ``zero_point`` (numbers or tensors), ``axis`` where the scheme is per channel, and
    optionally ``is_decomposed`` (give the integers as a plain tensor), ``quant_min`` and ``quant_max``. None stands
    for ``per_tensor_affine``, ``torch.quint8``, scale 1.0 and zero point 0.
    """

    _IS_REFERENCE = True

    weight_scale: torch.Tensor
    weight_zero_point: torch.Tensor
    weight_axis: torch.Tensor
    weight: torch.Tensor

    if TYPE_CHECKING:  # TorchScript reads the annotations that are there when it runs
        weight_qscheme: Any
        weight_dtype: Any
        weight_quant_min: Any
        weight_quant_max: Any
        weight_axis_int: Any
        is_decomposed: bool
        _quantized: Any
        _plain: Any
        _per_channel: Any
        _low: Any
        _high: Any
        _storage_dtype: Any

    def _bind(self) -> None:
        """Set what the class needs beside the float class's attributes."""

    def _init_weight_qparams(self, weight_qparams: dict[str, Any] | None, device: Any) -> None:
        if weight_qparams is None:
            weight_qparams = {"qscheme": torch.per_tensor_affine, "dtype": torch.quint8, "scale": 1.0, "zero_point": 0}
        scheme, dtype = weight_qparams["qscheme"], weight_qparams["dtype"]
        if scheme not in _SCHEMES:
            raise ConfigError(f"qscheme: {scheme} is not supported in reference {self._get_name()}; use an affine one")
        quantized = dtype in STORAGE
        if scheme is not None and not quantized and dtype not in (torch.float16, torch.float, torch.bfloat16):
            raise ConfigError(f"dtype: {dtype} is not supported for the weight of reference {self._get_name()}")
        self.__dict__.update(  # plain values: setting them one by one would ask of each whether it is a parameter
            weight_qscheme=scheme, weight_dtype=dtype, is_decomposed=bool(weight_qparams.get("is_decomposed", False))
        )
        per_channel = scheme in _PER_CHANNEL
        self._register("weight_scale", weight_qparams["scale"] if quantized else 1.0, torch.float, device)
        self._register("weight_zero_point", weight_qparams["zero_point"] if quantized else 0, torch.int, device)
        self._register("weight_axis", weight_qparams["axis"] if quantized and per_channel else 0, torch.int, device)
        self._resolve(weight_qparams.get("quant_min"), weight_qparams.get("quant_max"))

    def _register(self, name: str, value: Any, dtype: torch.dtype, device: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensor = value.detach().clone() if value.requires_grad else value.clone()
        elif isinstance(value, int | float):
            tensor = torch.scalar_tensor(value, dtype=dtype, device=device)  # at a third of the price of `tensor`
        else:
            tensor = torch.tensor(value, dtype=dtype, device=device)
        self._buffers[name] = tensor

    def _resolve(self, quant_min: int | None, quant_max: int | None) -> None:
        """Work out what ``get_weight`` needs as plain attributes, which TorchScript and export can read."""
        scheme, dtype = self.weight_qscheme, self.weight_dtype
        storage, low, high = STORAGE.get(dtype, (dtype, 0, 0))
        self.__dict__.update(
            weight_quant_min=quant_min,
            weight_quant_max=quant_max,
            _storage_dtype=storage,
            _low=low if quant_min is None else quant_min,
            _high=high if quant_max is None else quant_max,
            _per_channel=scheme in _PER_CHANNEL,
            _quantized=scheme is not None and dtype in STORAGE,
            # Plain integer dtypes have no quantized tensor, so they are always handed out as integers.
            _plain=self.is_decomposed or dtype is storage,
            weight_axis_int=int(self.weight_axis),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; the original pickles what was asked for, and works out the rest in every call."""
        super().__setstate__(state)
        if "_quantized" not in state:
            self._resolve(state.get("weight_quant_min"), state.get("weight_quant_max"))

    def hand_out_plain_integers(self) -> None:
        """Give the integers as a plain tensor from now on, as ``is_decomposed`` asks for; the numbers are the same."""
        self.__dict__.update(is_decomposed=True, _plain=True)

    def get_quantized_weight(self) -> torch.Tensor:
        """The weight as integers.

        Returns:
            A quantized tensor of ``weight_dtype``; a plain integer tensor where ``is_decomposed`` or where the dtype
            is a plain one; the weight cast to ``weight_dtype`` where that is a float one.
        """
        if not is_scripting():  # noqa: SIM102  TorchScript leaves out this branch only where it is alone
            if self._traced():
                return self._operators()[0]
        return quantized_weight(
            self.weight, self.weight_scale, self.weight_zero_point, self._quantized, self._plain, self._per_channel,
            self.weight_axis_int, self._low, self._high, self.weight_dtype, self._storage_dtype,
        )  # fmt: skip

    def get_weight(self) -> torch.Tensor:
        """The float weight after a round trip through its integers: what the quantized kernels compute with."""
        if self.weight_qscheme is None:
            return self.weight
        if not is_scripting():  # noqa: SIM102
            if self._traced():
                return self._operators()[1]
        return float_weight(
            self.weight, self.weight_scale, self.weight_zero_point, self._quantized, self._plain, self._per_channel,
            self.weight_axis_int, self._low, self._high, self.weight_dtype, self._storage_dtype,
        )  # fmt: skip

    @torch.jit.unused
    def _traced(self) -> bool:
        """Whether a graph is being recorded in which the integers are to be seen."""
        return self.is_decomposed and self._quantized and has_torch_function_unary(self.weight)

    @torch.jit.unused
    def _operators(self) -> tuple[torch.Tensor, torch.Tensor]:
        return as_operators(
            self.weight, self.weight_scale, self.weight_zero_point, self._per_channel, self.weight_axis_int, self._low,
            self._high, self._storage_dtype,
        )  # fmt: skip

    # State dict: weight_qscheme and weight_dtype as objects, then the tensors; the axis only for per_channel_affine.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight_qscheme"] = self.weight_qscheme
        destination[prefix + "weight_dtype"] = self.weight_dtype

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.weight_qscheme = state_dict.pop(prefix + "weight_qscheme", self.weight_qscheme)
        self.weight_dtype = state_dict.pop(prefix + "weight_dtype", self.weight_dtype)
        for name in ("weight_scale", "weight_zero_point", "weight_axis"):
            # Replaced, not copied into: a blank module has per-tensor shapes.
            value = state_dict.get(prefix + name)
            setattr(self, name, getattr(self, name) if value is None else value.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._resolve(self.weight_quant_min, self.weight_quant_max)


def _same_storage(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)


def of_float(
    cls: Any, float_module: Any, weight_qparams: dict[str, Any], taken: Callable[[Any], Any] = _same_storage
) -> Any:
    """A module of ``cls`` with the geometry, the parameters and the mode of a float module.

    The float class's constructor is not called: it would draw random weights only for them to be replaced.

    Args:
        cls: a reference class.
        float_module: of the class it stands for.
        weight_qparams: as `ReferenceQuantizedModule` has them.
        taken: from a parameter of the float module to that of the new one; by default it has the same storage.
    """
    made = cls.__new__(cls)
    start(made)
    own = made.__dict__
    own.update({name: value for name, value in float_module.__dict__.items() if name not in own and name != "qconfig"})
    own["training"] = float_module.training
    for name in ("weight", "bias"):
        parameter = getattr(float_module, name)
        own["_parameters"][name] = None if parameter is None else taken(parameter)
    made._bind()
    made._init_weight_qparams(weight_qparams, float_module.weight.device)
    return made
