"""Reference modules with several weights: each one passes through its own integers on every call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qfx.errors import ConfigError
from qfx.nn.quantized.reference.weight import STORAGE, float_weight, quantized_weight

_SCHEMES = (None, torch.per_tensor_affine, torch.per_channel_affine)
_BLANK = {"qscheme": torch.per_tensor_affine, "dtype": torch.quint8, "scale": 1.0, "zero_point": 0}


def get_quantized_weight(module: Any, wn: str) -> Tensor | None:
    """The weight called ``wn`` of a reference module as integers; None if it has no such weight."""
    return module._through(quantized_weight, wn) if hasattr(module, wn) else None


class ReferenceWeights(torch.nn.Module):
    """Mixin for float modules with several weights: holds how each of them is quantized.

    ``weight_qparams_dict`` has for each weight's name what :class:`ReferenceQuantizedModule` takes as
    ``weight_qparams``, and ``is_decomposed`` for all of them. None stands for scale 1.0 and ``torch.quint8``.

    For each weight, say ``weight_ih``, there are the attributes ``weight_ih_qscheme``, ``weight_ih_dtype`` and
    ``weight_ih_axis_int``, and where it has a scheme the buffers ``weight_ih_scale``, ``weight_ih_zero_point`` and
    ``weight_ih_axis``.
    """

    _IS_REFERENCE = True

    def _weight_names(self) -> list[str]:
        raise NotImplementedError

    def _init_weight_qparams_dict(self, weight_qparams_dict: dict[str, Any] | None, device: Any) -> None:
        names = self._weight_names()
        given = weight_qparams_dict or dict.fromkeys(names, _BLANK)
        missing = [name for name in names if name not in given]
        strange = [name for name in given if name not in (*names, "is_decomposed")]
        if missing or strange:
            raise ConfigError(
                f"weight_qparams_dict of {self._get_name()} needs exactly {', '.join(names)} (and is_decomposed); "
                f"missing: {', '.join(missing) or 'nothing'}, unknown: {', '.join(strange) or 'nothing'}"
            )
        self.is_decomposed = bool(given.get("is_decomposed", False))
        for name in names:
            self._init_one(name, given[name], device)

    def _init_one(self, name: str, qparams: dict[str, Any], device: Any) -> None:
        scheme, dtype = qparams["qscheme"], qparams["dtype"]
        if scheme not in _SCHEMES:
            raise ConfigError(f"qscheme: {scheme} is not supported in {self._get_name()}; use an affine one")
        quantized = dtype in STORAGE
        if scheme is not None and not quantized and dtype not in (torch.float16, torch.float, torch.bfloat16):
            raise ConfigError(f"dtype: {dtype} is not supported for {name} of {self._get_name()}")
        setattr(self, f"{name}_qscheme", scheme)
        setattr(self, f"{name}_dtype", dtype)
        if scheme is None:
            return
        axis = qparams["axis"] if scheme == torch.per_channel_affine else 0
        for what, value, stored in (
            ("scale", qparams["scale"] if quantized else 1.0, torch.float),
            ("zero_point", qparams["zero_point"] if quantized else 0, torch.int),
            ("axis", axis, torch.int),
        ):
            tensor = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value, dtype=stored)
            self.register_buffer(f"{name}_{what}", tensor.to(device))
        setattr(self, f"{name}_axis_int", int(axis))

    def _through(self, function: Any, name: str) -> Tensor:
        """``quantized_weight`` or ``float_weight`` of one weight."""
        weight, scheme, dtype = (getattr(self, name + suffix) for suffix in ("", "_qscheme", "_dtype"))
        if scheme is None:
            return weight if function is float_weight else weight.to(dtype)  # type: ignore[no-any-return]
        storage, low, high = STORAGE.get(dtype, (dtype, 0, 0))
        scale, zero_point, axis = (getattr(self, name + suffix) for suffix in ("_scale", "_zero_point", "_axis_int"))
        # Plain integer dtypes have no quantized tensor, so they are always handed out as integers.
        plain, per_channel = self.is_decomposed or dtype is storage, scheme == torch.per_channel_affine
        quantized = dtype in STORAGE
        return function(  # type: ignore[no-any-return]
            weight, scale, zero_point, quantized, plain, per_channel, axis, low, high, dtype, storage
        )
