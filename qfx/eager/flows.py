"""Whole flows in one call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from qfx.config import (
    default_dynamic_qconfig,
    float16_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    float_qparams_weight_only_qconfig_4bit,
)
from qfx.eager.convert import convert
from qfx.eager.errors import UnknownDtypeError
from qfx.eager.mappings import get_default_dynamic_quant_module_mappings
from qfx.eager.prepare import prepare, prepare_qat
from qfx.eager.propagate import propagate_qconfig_

_RECURRENT_AND_LINEAR = (nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.RNNCell, nn.GRUCell)
# Weight dtype -> the configuration that asks for it, and the classes it is for where nobody says.
_DYNAMIC: dict[Any, tuple[Any, tuple[Any, ...]]] = {
    torch.qint8: (default_dynamic_qconfig, _RECURRENT_AND_LINEAR),
    torch.float16: (float16_dynamic_qconfig, _RECURRENT_AND_LINEAR),
    torch.quint8: (float_qparams_weight_only_qconfig, (nn.EmbeddingBag, nn.Embedding)),
    torch.quint4x2: (float_qparams_weight_only_qconfig_4bit, (nn.EmbeddingBag,)),
}


def default_eval_fn(model: nn.Module, calib_data: Iterable[tuple[Any, Any]]) -> None:
    """Run a model on the first of every pair, such as (input, target)."""
    for data, _ in calib_data:
        model(data)


def quantize(
    model: nn.Module,
    run_fn: Callable[..., Any],
    run_args: Iterable[Any],
    mapping: Mapping[Any, Any] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Prepare, calibrate and convert a model.

    Args:
        model: a float model with stubs and ``qconfig``; see ``prepare``. It is quantized in evaluation mode.
        run_fn: called as ``run_fn(prepared, *run_args)``; runs the model on typical data.
        run_args: its further arguments.
        mapping: see ``convert``.
        inplace: change ``model`` instead of a copy. Default False.
    """
    if not inplace:
        model = copy.deepcopy(model)
    model.eval()
    prepare(model, inplace=True)
    run_fn(model, *run_args)
    return convert(model, mapping, inplace=True)


def quantize_qat(
    model: nn.Module, run_fn: Callable[..., Any], run_args: Iterable[Any], inplace: bool = False
) -> nn.Module:
    """Prepare a model for training, train and convert it.

    Args:
        model: a float model with stubs and ``qconfig``; see ``prepare_qat``. It is trained in training mode.
        run_fn: called as ``run_fn(prepared, *run_args)``; trains the model.
        run_args: its further arguments.
        inplace: change ``model`` instead of a copy. Default False.
    """
    if not inplace:
        model = copy.deepcopy(model)
    model.train()
    prepare_qat(model, inplace=True)
    run_fn(model, *run_args)
    return convert(model, inplace=True)


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Mapping[Any, Any] | set[Any] | None = None,
    dtype: torch.dtype = torch.qint8,
    mapping: Mapping[Any, Any] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Quantize the weights of a model; activations are quantized in each call, or not at all.

    Args:
        model: a float model. It is quantized in evaluation mode. The model itself is not replaced, only what is in it.
        qconfig_spec: what to quantize and how. A dict of configurations by path or class, or a set of paths and
            classes that are configured by ``dtype``. By default by ``dtype``: linear and recurrent layers for
            ``torch.qint8`` and ``torch.float16``, embeddings for ``torch.quint8``, embedding bags for
            ``torch.quint4x2``.
        dtype: of the weights; not asked where ``qconfig_spec`` is a dict. Default ``torch.qint8``.
        mapping: class to a class with ``from_float``. By default ``get_default_dynamic_quant_module_mappings()``.
        inplace: change ``model`` instead of a copy. Default False.

    Raises:
        UnknownDtypeError: no configuration goes with ``dtype``.

    Example:
        >>> model = quantize_dynamic(nn.Sequential(nn.Linear(4, 2)))
        >>> model[0].weight().dtype, model(torch.zeros(1, 4)).dtype
        (torch.qint8, torch.float32)
    """
    if qconfig_spec is None or isinstance(qconfig_spec, set):
        if dtype not in _DYNAMIC:
            raise UnknownDtypeError(
                f"Don't know how to quantize with default settings for {dtype}. Provide full qconfig please, or one of "
                f"{', '.join(map(str, _DYNAMIC))}"
            )
        qconfig, classes = _DYNAMIC[dtype]
        qconfig_spec = dict.fromkeys(classes if qconfig_spec is None else qconfig_spec, qconfig)
    if not inplace:
        model = copy.deepcopy(model)
    model.eval()
    propagate_qconfig_(model, qconfig_spec)
    return convert(model, get_default_dynamic_quant_module_mappings() if mapping is None else mapping, inplace=True)
