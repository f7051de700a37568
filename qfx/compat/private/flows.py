"""Steps of FX mode (``quantize_fx``)."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn
from torch.fx import GraphModule

from qfx.api.convert import convert_fx, convert_to_reference_fx
from qfx.api.modules import QuantizedGraphModule
from qfx.api.prepare import prepare_fx, prepare_qat_fx
from qfx.errors import ConfigError
from qfx.nn.quantized import FloatFunctional, FXFloatFunctional
from qfx.passes.decompose import decompose
from qfx.passes.pipeline import Context


def _check_is_graph_module(model: Any) -> None:
    """Refuse what is no graph module.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(model, GraphModule):
        raise ConfigError(
            f"input model must be a GraphModule, Got type:{type(model)}; trace it with torch.fx.symbolic_trace first"
        )


def _swap_ff_with_fxff(model: nn.Module) -> None:
    """Put the traceable form in the place of every ``FloatFunctional`` of a model."""
    for name, child in list(model.named_children()):
        if isinstance(child, FloatFunctional):
            model._modules[name] = FXFloatFunctional()
        else:
            _swap_ff_with_fxff(child)


def _prepare_fx(
    model: nn.Module,
    qconfig_mapping: Any,
    is_qat: bool,
    example_inputs: tuple[Any, ...],
    prepare_custom_config: Any = None,
    _equalization_config: Any = None,
    backend_config: Any = None,
) -> GraphModule:
    """`prepare_fx`, or `prepare_qat_fx`."""
    if is_qat:
        return prepare_qat_fx(model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
    return prepare_fx(
        model, qconfig_mapping, example_inputs, prepare_custom_config, _equalization_config, backend_config
    )


def _convert_fx(
    graph_module: GraphModule,
    is_reference: bool,
    convert_custom_config: Any = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> GraphModule:
    """`convert_to_reference_fx`, or `convert_fx`."""
    convert = convert_to_reference_fx if is_reference else convert_fx
    return convert(graph_module, convert_custom_config, _remove_qconfig, qconfig_mapping, backend_config)


def _convert_to_reference_decomposed_fx(
    graph_module: GraphModule,
    convert_custom_config: Any = None,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> GraphModule:
    """`convert_to_reference_fx`, spelled with plain integers and ``torch.ops.quantized_decomposed``.

    Raises:
        ModuleNotFoundError: this PyTorch does not ship these operators any more.
    """
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    made: Any = convert_to_reference_fx(graph_module, convert_custom_config, True, qconfig_mapping, backend_config)
    draft = made.draft()
    context = Context.of(draft)
    decompose(draft, context)
    draft.prune(draft.plan["preserved"])
    return QuantizedGraphModule.adopt(draft)
