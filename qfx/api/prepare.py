"""``prepare_fx`` and ``prepare_qat_fx``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx import layout
from qfx.api.arguments import as_config, as_examples, preserve
from qfx.api.honoured import check_honoured, check_transposed, check_unused, choices
from qfx.api.modules import ObservedGraphModule, QuantizedGraphModule
from qfx.api.parts import interface, observe_custom, prepare_standalone, whole_classes, whole_names
from qfx.api.pause import no_collections
from qfx.api.stages import prepare_stages, with_passes
from qfx.capture import capture
from qfx.config import BackendConfig, PrepareCustomConfig, QConfigMapping
from qfx.config.backend_config.moves import SELECTIONS
from qfx.config.resolve import resolve
from qfx.errors import ConfigError, ModelStateError
from qfx.graph import GraphView
from qfx.graph.kept import state_bytes
from qfx.graph.nodes import plain_names
from qfx.graph.provenance import describe, merged
from qfx.graph.walk import modules_in
from qfx.observers.equalization import EqualizationQConfig
from qfx.passes.annotate.backend import compiled, default_backend
from qfx.passes.annotate.choices import choice, choose
from qfx.passes.annotate.idle import leave_idle_moves
from qfx.passes.annotate.inputs import weight_and_bias
from qfx.passes.annotate.instances import Found, find
from qfx.passes.annotate.sites import Sites, place
from qfx.passes.annotate.tensors import not_float
from qfx.passes.equalize import equalize
from qfx.passes.input_weight import watch_columns
from qfx.passes.interface import Interface
from qfx.passes.layers import own_reference
from qfx.passes.observe import observe
from qfx.passes.pipeline import Context, Pipeline, Step, run_steps
from qfx.passes.train import train_weights


@no_collections()
def prepare_fx(
    model: nn.Module,
    qconfig_mapping: QConfigMapping | dict[str, Any],
    example_inputs: tuple[Any, ...] | dict[str, Any] | None,
    prepare_custom_config: PrepareCustomConfig | dict[str, Any] | None = None,
    _equalization_config: QConfigMapping | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
    *,
    passes: dict[str, list[Step]] | None = None,
    strict: bool = False,
) -> ObservedGraphModule:
    """Insert observers into a copy of a float model for post-training quantization.

    Batch norm is folded, relu merged, and an observer put wherever the backend can quantize and the mapping says so. A
    clamp after an op is observed instead of the op. Run the result on calibration data, then call `convert_fx`.

    Args:
        model: a module in eval mode, or an fx graph module of one. Not changed, not run.
        qconfig_mapping: which observers for which part of the model.
        example_inputs: a tuple of what the model is called with, a dictionary of it by name, or its one tensor; tells
            containers and integers from float tensors. None takes every input for a float tensor.
        prepare_custom_config: submodules to keep whole, attributes to keep.
        _equalization_config: layers to equalize with the next one before anything is observed, so that the weights of
            both have ranges alike: a mapping in which anything but None says so.
        backend_config: what can be quantized, and how; by default the native kernels and data moves.
        passes: your own passes by the stage (``"normalize"``, ``"fuse"``) they run after.
        strict: raise for what would else be a warning, or an entry of the plan: parts of the configuration that match
            nothing or are honoured nowhere, and every operator the backend does not take as it is configured. An
            operator no pattern matches is none of these under the global entry.

    Returns:
        An `ObservedGraphModule`.

    Raises:
        ModelStateError: something would still train (dropout, batch norm), or a weight to quantize is not float32.
        CaptureError: the model cannot be traced; the message names the place.
        ConfigError: a configuration is of another type, or asks for what is not built.
        DowngradeError: `strict`, and part of the configuration matches nothing or cannot be honoured.

    Example:
        >>> import torch, qfx
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
        >>> x = torch.randn(8, 4)
        >>> prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
        >>> _ = prepared(x)
    """
    return _prepared(
        "prepare_fx",
        model,
        qconfig_mapping,
        example_inputs,
        prepare_custom_config,
        backend_config,
        equalization=_equalization_config,
        passes=passes,
        strict=strict,
    )


@no_collections()
def prepare_qat_fx(
    model: nn.Module,
    qconfig_mapping: QConfigMapping | dict[str, Any],
    example_inputs: tuple[Any, ...] | dict[str, Any] | None,
    prepare_custom_config: PrepareCustomConfig | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
    *,
    passes: dict[str, list[Step]] | None = None,
    strict: bool = False,
) -> ObservedGraphModule:
    """Put fake-quantize modules into a copy of a float model, for training with simulated quantization.

    Convolutions and linear layers become modules of ``qfx.nn.qat`` and ``qfx.nn.intrinsic.qat`` that round their weight
    in every forward; one with a batch norm trains with the folded weight rounded. Train the result, call ``eval()`` on
    it, then `convert_fx`. ``model.apply(qfx.disable_observer)`` freezes the ranges,
    ``model.apply(qfx.nn.intrinsic.qat.freeze_bn_stats)`` the batch norms' statistics.

    Args:
        model: a module, usually in training mode. Not changed; its parameters are copied, so give the optimizer those
            of the result.
        qconfig_mapping: which fake-quantize modules for which part; see `get_default_qat_qconfig_mapping`.
        example_inputs: a tuple of what the model is called with, a dictionary of it by name, or its one tensor.
        prepare_custom_config: submodules to keep whole, attributes to keep.
        backend_config: what can be quantized; its ``qat_module`` wins over the class qfx would take.
        passes: your own passes by the stage (``"normalize"``, ``"fuse"``) they run after.
        strict: entries of the mapping that match nothing are an error instead of a warning.

    Returns:
        An `ObservedGraphModule` in the mode of `model`.

    Raises:
        ModelStateError: a weight to be quantized is not float32.
        CaptureError: the model cannot be traced; the message names the place.
        ConfigError: a configuration is of another type, or asks for what is not built.
        DowngradeError: `strict`, and part of the mapping matches nothing.

    Example:
        >>> import torch, qfx
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).train()
        >>> x = torch.randn(8, 3, 4, 4)
        >>> prepared = qfx.prepare_qat_fx(model, qfx.get_default_qat_qconfig_mapping("x86"), (x,))
        >>> prepared(x).sum().backward()
        >>> int8 = qfx.convert_fx(prepared.eval())
    """
    return _prepared(
        "prepare_qat_fx",
        model,
        qconfig_mapping,
        example_inputs,
        prepare_custom_config,
        backend_config,
        passes=passes,
        strict=strict,
        training=True,
    )


def _prepared(
    caller: str,
    model: nn.Module,
    qconfig_mapping: Any,
    example_inputs: Any,
    prepare_custom_config: Any,
    backend_config: Any,
    *,
    equalization: Any = None,
    passes: dict[str, list[Step]] | None,
    strict: bool,
    training: bool = False,
) -> ObservedGraphModule:
    mapping = as_config(QConfigMapping, qconfig_mapping, "qconfig_mapping")
    custom = as_config(PrepareCustomConfig, prepare_custom_config, "prepare_custom_config") or PrepareCustomConfig()
    given = as_config(BackendConfig, backend_config, "backend_config")
    if isinstance(model, ObservedGraphModule | QuantizedGraphModule):
        raise ConfigError(f"{caller} takes a float model; this {type(model).__mro__[1].__name__} is prepared already")
    if mapping is None:
        raise ConfigError(f"{caller} needs a QConfigMapping; start from get_default_qconfig_mapping()")
    example_inputs = as_examples(example_inputs, model)
    factors = as_config(QConfigMapping, equalization, "_equalization_config")
    if any(isinstance(each, EqualizationQConfig) for each in _values(mapping)):
        raise ConfigError("an EqualizationQConfig says how layers are equalized; give it in _equalization_config")
    gm = capture(
        model,
        skipped_names=whole_names(custom),
        skipped_classes=whole_classes(custom),
        examples=example_inputs,
        inference=not training,
        draft=True,
    )
    choose(gm, mapping)
    check_unused(gm, mapping, custom, strict)
    if layout.as_original:
        check_transposed(gm)
    chosen = choices(gm)
    context = Context.of(gm)
    stages = prepare_stages(given, is_qat=training)
    run_steps(gm, Pipeline("prepare", with_passes(stages, passes)).steps, context)
    plain_names(gm.graph)
    by_column = factors is not None and any(isinstance(each, EqualizationQConfig) for each in _values(factors))
    across = factors is not None and not by_column
    equalized = equalize(context, lambda node: _equalization(node, factors) is not None) if across else []
    crossing = interface(context, custom, mapping)

    def inner(module: nn.Module, qconfigs: Any, examples: Any, inside: Any, backend_inside: Any) -> ObservedGraphModule:
        its_backend = backend_inside if backend_inside is not None else given
        options: dict[str, Any] = {"passes": passes, "strict": strict, "training": training}
        return _prepared(caller, module, qconfigs, examples, inside, its_backend, **options)

    prepare_standalone(context, custom, mapping, crossing, inner)
    observe_custom(context, custom, mapping, crossing)
    found, sites = _annotate(context, given, mapping, example_inputs, crossing)
    check_honoured(gm, chosen, found, strict)
    plan = (
        _plan(context.view, found, sites)
        | crossing.plan()
        | {
            "bytes_before": state_bytes(model),
            "preserved": custom.preserved_attributes,
            "mapping": mapping,
            "equalized": equalized,
        }
    )
    plan["followed"] = observe(context, sites)
    if by_column:
        roots = {instance.root for instance in found.of.values() if instance.weighted}
        plan["columns"] = watch_columns(context, lambda node: _equalization(node, factors), roots)
    if training:
        train_weights(context, found)
    preserve(model, gm, custom.preserved_attributes)
    made = ObservedGraphModule.adopt(gm, plan)
    assert isinstance(made, ObservedGraphModule)
    return made


def _check_float32(view: GraphView, found: Found) -> None:
    """Refuse a layer to be quantized whose weight is not float32; what stays float may be anything."""
    for instance in found.of.values():
        if not instance.weighted:
            continue
        root = instance.root
        if root.op == "call_module":
            weight: Any
            found_name, weight = _weight_in(view.module(str(root.target)))
            name = f"{root.target}.{found_name}"
        else:
            found_weight, _ = weight_and_bias(view, root, instance.roles)
            name, weight = str(found_weight), getattr(found_weight, "tensor", None)
        if weight is not None and weight.dtype is not torch.float32:
            raise ModelStateError(
                f"{name} is {weight.dtype}, and quantized kernels stand between float32 values; call model.float() "
                f"before prepare_fx, or leave {describe(root)} out of the mapping"
            )


def _weight_in(module: nn.Module) -> tuple[str, nn.Parameter]:
    """The first parameter that is a weight, and its name."""
    for path, part in modules_in(module):
        for name, parameter in part._parameters.items():
            full = f"{path}.{name}" if path else name
            if "weight" in full and parameter is not None:
                return full, parameter
    raise AssertionError(f"a weighted {type(module).__name__} has no weight")


def _annotate(
    context: Context, given: BackendConfig | None, mapping: QConfigMapping, examples: Any, crossing: Interface
) -> tuple[Found, Sites]:
    view: GraphView = context.view
    found = find(view, compiled(given or default_backend()), not_float(view, examples))
    _check_float32(view, found)
    if given is not None:
        return found, place(view, found, mapping.global_qconfig, crossing)
    leave_idle_moves(view, found, crossing)
    return found, place(view, found, mapping.global_qconfig, crossing, selections=SELECTIONS)


def _plan(view: GraphView, found: Found, sites: Sites) -> dict[str, Any]:
    """What convert and the report need, as plain data by node name."""
    instances = {}
    for node, instance in found.of.items():
        if node is instance.root:
            config = instance.backend_pattern.config
            instances[node.name] = {
                "anchor": instance.anchor.name,
                "nodes": tuple(member.name for member in instance.nodes),
                "op": view.read(instance.root).op.name,
                "kind": instance.kind,
                "weighted": instance.weighted,
                "computed": instance.computed,
                "reference": own_reference(config.root_module, config.reference_quantized_module),
                "qconfig": instance.qconfig,
                "why": instance.why,
                "pattern": instance.pattern,
                "origins": tuple(origin.name for origin in merged(instance.nodes)),
            }
    assert sites.solution is not None
    groups = [tuple(map(str, group.sites)) for group in sites.solution.groups]
    reasons = {name: left.why for name, left in found.left.items()}
    downgrades = [name for name, left in found.left.items() if left.downgrade is not None]
    return {"instances": instances, "float": reasons, "downgrades": downgrades, "groups": groups}


def _equalization(node: Node, factors: QConfigMapping | None) -> Any:
    """What a mapping says of how a layer is equalized; None if it is not to be."""
    decided = choice(node)
    if factors is None or decided is None or decided.asked is None:
        return None
    return resolve(factors, **decided.asked).qconfig


def _values(mapping: QConfigMapping) -> Iterator[Any]:
    """All configurations of a mapping."""
    yield mapping.global_qconfig
    for table in (
        mapping.object_type_qconfigs,
        mapping.module_name_regex_qconfigs,
        mapping.module_name_qconfigs,
        mapping.module_name_object_type_order_qconfigs,
    ):
        yield from table.values()
