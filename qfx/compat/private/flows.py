"""Steps of FX mode (``quantize_fx``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule

from qfx.api.convert import convert_fx, convert_to_reference_fx
from qfx.api.fuse import fuse_fx, fuse_qat_fx
from qfx.api.modules import ObservedStandaloneGraphModule, QuantizedGraphModule
from qfx.api.prepare import prepare_fx, prepare_qat_fx
from qfx.errors import ConfigError
from qfx.nn.quantized import FloatFunctional, FXFloatFunctional
from qfx.passes.decompose import decompose
from qfx.passes.pipeline import Context

_USER_PRESERVED_ATTRIBUTES_KEY = "_user_preserved_attributes"


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
    is_reference: bool = False,
    convert_custom_config: Any = None,
    is_standalone_module: bool = False,
    _remove_qconfig: bool = True,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
    is_decomposed: bool = False,
    keep_original_weights: bool = False,
) -> GraphModule:
    """`convert_to_reference_fx` (``is_decomposed``: with plain integers), or `convert_fx`.

    Args:
        graph_module: what ``prepare_fx`` returned.
        is_reference: not to be lowered to kernels.
        convert_custom_config, _remove_qconfig, qconfig_mapping, backend_config: as for ``convert_fx``.
        is_standalone_module: taken and not asked: a prepared model knows what it was prepared as.
        is_decomposed: see `_convert_to_reference_decomposed_fx`.
        keep_original_weights: as for ``convert_fx``; taken and not asked for a reference, which has the weights.
    """
    if is_decomposed:
        return _convert_to_reference_decomposed_fx(graph_module, convert_custom_config, qconfig_mapping, backend_config)
    given = (graph_module, convert_custom_config, _remove_qconfig, qconfig_mapping, backend_config)
    return convert_to_reference_fx(*given) if is_reference else convert_fx(*given, keep_original_weights)


def _prepare_standalone_module_fx(
    model: nn.Module,
    qconfig_mapping: Any,
    is_qat: bool,
    example_inputs: tuple[Any, ...],
    prepare_custom_config: Any = None,
    backend_config: Any = None,
) -> ObservedStandaloneGraphModule:
    """`_prepare_fx` of a module that is converted by itself inside another model."""
    made = _prepare_fx(
        model, qconfig_mapping, is_qat, example_inputs, prepare_custom_config, backend_config=backend_config
    )
    standalone = ObservedStandaloneGraphModule.adopt(made)
    assert isinstance(standalone, ObservedStandaloneGraphModule)
    return standalone


def _convert_standalone_module_fx(
    graph_module: GraphModule, is_reference: bool = False, convert_custom_config: Any = None
) -> GraphModule:
    """`_convert_fx` of what `_prepare_standalone_module_fx` returned."""
    return _convert_fx(graph_module, is_reference, convert_custom_config, is_standalone_module=True)


def _fuse_fx(
    model: GraphModule, is_qat: bool, fuse_custom_config: Any = None, backend_config: Any = None
) -> GraphModule:
    """`fuse_fx`; in training, batch norms are collected with their layers instead of folded into them.

    Raises:
        ConfigError: `model` is no graph module.
    """
    _check_is_graph_module(model)
    if not is_qat:
        return fuse_fx(model, fuse_custom_config, backend_config)
    return fuse_qat_fx(model, fuse_custom_config, backend_config)


def attach_preserved_attrs_to_model(model: nn.Module, preserved_attrs: dict[str, Any]) -> None:
    """Put attributes on a model, and their names where a copy finds them."""
    for name, value in preserved_attrs.items():
        setattr(model, name, value)
    meta: dict[str, Any] = model.__dict__.setdefault("meta", {})
    meta[_USER_PRESERVED_ATTRIBUTES_KEY] = dict(preserved_attrs)


def _convert_to_reference_decomposed_fx(
    graph_module: GraphModule,
    convert_custom_config: Any = None,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> GraphModule:
    """`convert_to_reference_fx`, spelled with plain integers and ``torch.ops.quantized_decomposed``."""
    made: Any = convert_to_reference_fx(graph_module, convert_custom_config, True, qconfig_mapping, backend_config)
    draft = made.draft()
    context = Context.of(draft)
    decompose(draft, context)
    draft.prune(draft.plan["preserved"])
    return QuantizedGraphModule.adopt(draft)


convert = _convert_fx
fuse = _fuse_fx


def prepare(
    model: GraphModule,
    qconfig_mapping: Any,
    is_qat: bool,
    node_name_to_scope: Mapping[str, tuple[str, type]],
    example_inputs: tuple[Any, ...],
    prepare_custom_config: Any = None,
    _equalization_config: Any = None,
    backend_config: Any = None,
    is_standalone_module: bool = False,
) -> GraphModule:
    """`_prepare_fx` of a graph module that was traced by hand.

    Args:
        model: the graph module.
        qconfig_mapping, example_inputs, prepare_custom_config, _equalization_config, backend_config: as for
            ``prepare_fx``.
        is_qat: prepare for training.
        node_name_to_scope: path and class of the module each node ran in; nodes that know it themselves
            (``nn_module_stack``) are believed.
        is_standalone_module: prepare it as a module that is converted by itself inside another model.

    Raises:
        ConfigError: `model` is no graph module.
    """
    _check_is_graph_module(model)
    copied: Any = copy.deepcopy(model)
    for node in copied.graph.nodes:
        path, kind = node_name_to_scope.get(node.name, ("", None))
        if path and "nn_module_stack" not in node.meta:
            node.meta["nn_module_stack"] = {path: (path, kind)}
    if is_standalone_module:
        return _prepare_standalone_module_fx(
            copied, qconfig_mapping, is_qat, example_inputs, prepare_custom_config, backend_config
        )
    return _prepare_fx(
        copied, qconfig_mapping, is_qat, example_inputs, prepare_custom_config, _equalization_config, backend_config
    )
