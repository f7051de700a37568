"""From float modules and their observers to quantized weights and output qparams.

Observers are known here by their interface only: ``calculate_qparams()``, ``qscheme``, ``dtype``, ``ch_axis``,
``quant_min`` and ``quant_max``; a fake-quantize carries its observer as ``activation_post_process``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.errors import ConfigError
from qfx.nn.errors import ModuleTypeError, WeightTypeError
from qfx.nn.folding import fold_modules
from qfx.observers import default_weight_observer

PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)
PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric)


def quantize_weight(weight: torch.Tensor, observer: Any) -> torch.Tensor:
    """Quantize a float weight with what ``observer`` (or fake-quantize) found out.

    Args:
        weight: the float weight.
        observer: has seen the weight. Affine schemes give ``torch.qint8``; ``per_channel_affine_float_qparams``
            (embeddings) gives the observer's own dtype.

    Returns:
        A quantized tensor of the same shape, its codes inside the observer's ``quant_min`` and ``quant_max``.

    Raises:
        ConfigError: the observer's scheme quantizes no weight.
    """
    scale, zero_point = observer.calculate_qparams()
    source = getattr(observer, "activation_post_process", observer)
    scheme = observer.qscheme
    if scheme in PER_TENSOR:
        quantized = torch.quantize_per_tensor(weight, float(scale), int(zero_point), torch.qint8)
    elif scheme in PER_CHANNEL:
        quantized = torch.quantize_per_channel(
            weight, scale.to(torch.double), zero_point.to(torch.int64), source.ch_axis, torch.qint8
        )
    elif scheme == torch.per_channel_affine_float_qparams:
        quantized = torch.quantize_per_channel(
            weight, scale.to(torch.float), zero_point.to(torch.float), source.ch_axis, observer.dtype
        )
        if (
            observer.dtype == torch.quint4x2
        ):  # two codes to a byte: int_repr() cannot be clamped, and no observer narrows 4 bits
            return quantized
    else:
        raise ConfigError(
            f"a weight cannot be quantized with the scheme {scheme}; use a per-tensor or per-channel affine one"
        )
    return clamp_codes(quantized, source.quant_min, source.quant_max)


def clamp_codes(quantized: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Keep the codes inside the observer's range: quantizing saturates at the ends of the stored type only."""
    codes = quantized.int_repr()
    stored = torch.iinfo(codes.dtype)
    if low <= stored.min and high >= stored.max:
        return quantized
    codes = codes.clamp(low, high)
    if quantized.qscheme() == torch.per_tensor_affine:
        return torch._make_per_tensor_quantized_tensor(codes, quantized.q_scale(), quantized.q_zero_point())
    return torch._make_per_channel_quantized_tensor(
        codes, quantized.q_per_channel_scales(), quantized.q_per_channel_zero_points(), quantized.q_per_channel_axis()
    )


def output_qparams(module: torch.nn.Module, owner: str) -> tuple[float, int]:
    """The scale and zero point the module's output observer arrived at; ``owner`` is named in the error if there is
    none."""
    observer = getattr(module, "activation_post_process", None)
    if observer is None or not hasattr(observer, "calculate_qparams"):
        raise ModuleTypeError(
            f"{owner}.from_float got a {type(module).__name__} without an observer of its output; "
            "prepare and calibrate the model first (activation_post_process is missing)"
        )
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)


def observed_weight(
    owner: type[torch.nn.Module],
    module: Any,
    accepted: tuple[type[torch.nn.Module], ...],
    use_precomputed_fake_quant: bool,
) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    """Quantize the weight of a float module with a qconfig, or of a QAT module, for ``owner.from_float``.

    Args:
        owner: the class that is being built, for messages.
        module: a float module or fused pair of one of the ``accepted`` classes with a ``qconfig``, or a QAT module
            with a ``weight_fake_quant`` (and perhaps a batch norm ``bn``, which is folded here; the module itself is
            not changed).
        accepted: the float classes.
        use_precomputed_fake_quant: keep the range the weight observer has instead of looking at the weight once more.

    Returns:
        The module that has the geometry, the quantized weight, and the float bias or None.

    Raises:
        ModuleTypeError: another class, or no qconfig.
        ConfigError: the weight observer's dtype is not int8.
    """
    if hasattr(module, "weight_fake_quant"):
        observer = module.weight_fake_quant
        weight, bias = _folded(module)
    else:
        kind = type_before_parametrizations(module)
        if kind not in accepted:
            raise ModuleTypeError(_only(f"nnq.{owner.__name__}", accepted, kind))
        outer, module = module, module[0] if isinstance(module, torch.nn.Sequential) else module
        qconfig = getattr(module, "qconfig", None) or getattr(outer, "qconfig", None)
        if qconfig is None:
            raise ModuleTypeError(
                f"Input float module must have qconfig defined: {owner.__name__}.from_float got a {kind.__name__} "
                "without one; set one and prepare"
            )
        observer = qconfig.weight()
        weight, bias = module.weight, module.bias
    if not use_precomputed_fake_quant:
        observer(weight)
    if observer.dtype not in (torch.qint8, torch.int8):
        raise ConfigError(f"{owner.__name__} takes int8 weights; the weight observer has dtype {observer.dtype}")
    return module, quantize_weight(weight.detach().float(), observer), None if bias is None else bias.detach()


def _only(owner: str, accepted: tuple[type[torch.nn.Module], ...], kind: type[torch.nn.Module]) -> str:
    names = ", ".join(one.__name__ for one in accepted)
    return f"{owner}.from_float only works for {names}{',' if len(accepted) > 1 else ''} but got: {kind.__name__}"


class DynamicWeights:
    """How the weights of one module are quantized dynamically: what its ``qconfig`` says, or int8 per tensor.

    Args:
        owner: the class that is being built, for messages.
        module: a float module, or a fused pair whose first part has the weight.
        accepted: the classes it may be of, exactly.

    Attributes:
        dtype: of the stored weight, ``torch.qint8`` or ``torch.float16``.
        module: the module with the weight.

    Raises:
        ModuleTypeError: another class, or nothing has a ``qconfig``, not even None.
        WeightTypeError: the weight observer's dtype is another one.
    """

    def __init__(self, owner: type[torch.nn.Module], module: Any, accepted: tuple[type[torch.nn.Module], ...]) -> None:
        kind = type_before_parametrizations(module)
        if kind not in accepted:
            raise ModuleTypeError(_only(f"nn.quantized.dynamic.{owner.__name__}", accepted, kind))
        parts = [module, module[0]] if isinstance(module, torch.nn.Sequential) else [module]
        if not any(hasattr(part, "qconfig") for part in parts):
            raise ModuleTypeError(
                f"Input float module must have qconfig defined: {owner.__name__}.from_float got a {kind.__name__} "
                "without one; set one, or None for int8"
            )
        given = [qconfig for part in parts if (qconfig := getattr(part, "qconfig", None)) is not None]
        self._make = given[0].weight if given and given[0].weight is not None else default_weight_observer
        self.module: Any = parts[-1]
        self.dtype = self._make().dtype
        if self.dtype not in (torch.qint8, torch.float16):
            raise WeightTypeError(
                f"{owner.__name__} stores torch.qint8 or torch.float16; the weight observer has dtype {self.dtype}"
            )

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """The int8 weight, its range observed here; for ``torch.float16`` the weight as it is, in float32."""
        weight = weight.detach().float()
        if self.dtype == torch.float16:
            return weight
        observer = self._make()
        observer(weight)
        return quantize_weight(weight, observer)


def _folded(module: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return fold_modules(module, module.bn) if hasattr(module, "bn") else (module.weight, module.bias)
