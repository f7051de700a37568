"""``convert_fx`` and ``convert_to_reference_fx``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule

from qfx.api.doubts import check_doubts, check_downgrades, check_dropped, check_lowered
from qfx.api.equalized import equalize_in
from qfx.api.modules import ObservedGraphModule, QuantizedGraphModule
from qfx.api.originals import original_weights
from qfx.api.parts import after_conversion, before_conversion
from qfx.api.pause import no_collections
from qfx.api.skip import leave_computed, leave_out
from qfx.api.stages import with_passes
from qfx.config import BackendConfig, ConvertCustomConfig, QConfigMapping
from qfx.errors import ConfigError
from qfx.graph.nodes import plain_names
from qfx.graph.walk import all_on_cpu, each_module
from qfx.passes.convert import Converted, convert, only_read
from qfx.passes.dynamic import WHOLE
from qfx.passes.fetch import FETCH, fetch_constants
from qfx.passes.lower.native import NATIVE
from qfx.passes.lower.onednn import ONEDNN
from qfx.passes.observe import follow
from qfx.passes.pipeline import Context, FunctionPass, Pipeline, Step, drop_dead_code, run_steps


@no_collections()
@torch.no_grad()
def convert_to_reference_fx(
    graph_module: GraphModule,
    convert_custom_config: ConvertCustomConfig | dict[str, Any] | None = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: QConfigMapping | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
    *,
    strict: bool = False,
) -> QuantizedGraphModule:
    """Convert a calibrated model to a reference graph: quantize, dequantize and float ops between them.

    It runs everywhere and says what the quantized model means; `convert_fx` lowers it to integer kernels.

    Args:
        graph_module: what `prepare_fx` returned, after calibration. Not changed.
        convert_custom_config: attributes to keep.
        _remove_qconfig: take the ``qconfig`` that ``prepare_fx`` gave them from modules that stay. True by default.
        qconfig_mapping: leaves layers out after all: the entries of the mapping for prepare, each with the same
            configuration or None, and any further ones with None. None as a whole quantizes all that was prepared.
        backend_config: accepted for the original's sake; prepare decided what the backend can do.
        strict: doubtful statistics (an observer that never ran, NaN, infinity), values left unquantized and what
            `prepare_fx` could not honour are errors instead of warnings.

    Returns:
        A `QuantizedGraphModule`.

    Raises:
        ConfigError: the model was not prepared, or what is asked for is not built.
        DowngradeError: `strict`, and some statistics are doubtful, or something stays float that was to be quantized.

    Example:
        >>> import torch, qfx
        >>> x = torch.randn(8, 4)
        >>> prepared = qfx.prepare_fx(torch.nn.Linear(4, 4).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
        >>> _ = prepared(x)
        >>> qfx.convert_to_reference_fx(prepared)(x).shape
        torch.Size([8, 4])
    """

    def inner(module: GraphModule) -> GraphModule:
        return convert_to_reference_fx(module, convert_custom_config, _remove_qconfig, strict=strict)

    context, converted = _reference(
        _observed(graph_module), convert_custom_config, qconfig_mapping, strict, inner, lowered=False
    )
    fetch_constants(context.view.gm, context)
    converted.own_parameters(context.view.gm, context)
    return _finished(context, _remove_qconfig)


# Parts of a prepared model's plan, and of its instances, that a converted one has no use for
_OF_PREPARED = ("columns", "followed", "mapping", "left_out", "parts", "standalone", "watched")
_OF_PREPARED_INSTANCES = ("computed", "qconfig", "reference")


def _reference(
    graph_module: ObservedGraphModule,
    convert_custom_config: Any,
    qconfig_mapping: Any,
    strict: bool,
    inner: Callable[[GraphModule], GraphModule],
    *,
    lowered: bool,
) -> tuple[Context, Converted]:
    """The reference graph, not yet compiled, in the context it was made in.

    `inner` converts standalone modules; what no kernel could take is left out where the graph is to be `lowered`.
    """
    custom = (
        ConvertCustomConfig.from_dict(convert_custom_config)
        if isinstance(convert_custom_config, dict)
        else (convert_custom_config or ConvertCustomConfig())
    )
    before = leave_out(graph_module, qconfig_mapping, strict) if qconfig_mapping else graph_module.plan
    if lowered:
        before = leave_computed(graph_module, before, strict)
    gm = graph_module.draft(shared=only_read(graph_module, before["instances"]))
    context = Context.of(gm)
    gm.plan = {**before, "given": list(before["given"]), "takes": dict(before["takes"])}
    follow(context, gm.plan.get("followed", {}))
    if gm.plan.get("columns"):
        equalize_in(context)
    before_conversion(context, gm.plan, custom.observed_to_quantized_mapping)
    converted = convert(context, gm.plan["instances"])
    after_conversion(context, gm.plan, inner)
    drop_dead_code(gm, context)
    if strict:
        check_downgrades(gm)
    check_dropped(gm, converted.unquantized, strict)
    check_doubts(converted, strict)
    instances = {
        name: {key: value for key, value in each.items() if key not in _OF_PREPARED_INSTANCES}
        for name, each in gm.plan["instances"].items()
    }
    plan = {
        **{key: value for key, value in gm.plan.items() if key not in _OF_PREPARED},
        "instances": instances,
        "problems": converted.problems | converted.constants,
        "shapes": converted.shapes,
        "float": gm.plan["float"] | converted.halves | converted.unquantized,
    }
    plan["preserved"] = _preserved(graph_module, custom)
    for name in custom.preserved_attributes:
        setattr(gm, name, getattr(graph_module, name))
    gm.plan = plan
    return context, converted


def _finished(context: Context, remove_qconfig: bool) -> QuantizedGraphModule:
    gm: Any = context.view.gm
    gm.prune(gm.plan["preserved"])
    made = QuantizedGraphModule.adopt(gm)
    assert isinstance(made, QuantizedGraphModule)
    for module in each_module(made) if remove_qconfig else ():
        module.__dict__.pop("qconfig", None)
    return made


def _observed(graph_module: Any) -> ObservedGraphModule:
    """The graph module, refused if `prepare_fx` did not make it."""
    if not isinstance(graph_module, ObservedGraphModule):
        raise ConfigError(
            f"convert takes what prepare_fx returned, got {type(graph_module).__name__}; "
            "call prepare_fx on the model first"
        )
    return graph_module


def _preserved(prepared: ObservedGraphModule, custom: ConvertCustomConfig) -> list[str]:
    return [*prepared.plan.get("preserved", ()), *custom.preserved_attributes]


def _refuse_devices(graph_module: GraphModule) -> None:
    """Quantized kernels exist for the CPU only."""
    if all_on_cpu(graph_module):
        return
    named = (*graph_module.named_parameters(), *graph_module.named_buffers())
    name, device = next((name, tensor.device) for name, tensor in named if tensor.device.type != "cpu")
    raise ConfigError(
        f"{name} is on {device}, and the quantized kernels run on the CPU only; call .cpu() on the prepared model "
        "before convert_fx, or use convert_to_reference_fx, which runs anywhere"
    )


def _refuse_for_plain_integers(context: Context) -> None:
    """The onednn target has plain integers for activations, and no kernel that quantizes them in the call."""
    plan: dict[str, Any] = getattr(context.view.gm, "plan", {})
    crossing = [*plan["given"], *plan["takes"]]
    if crossing:
        raise ConfigError(
            f"{crossing[0]} takes or gives quantized tensors, and the target 'onednn' has plain integers, which do not "
            "tell their scale; use the target 'native', or let floats cross the edges of the graph"
        )
    found = [name for name, instance in plan["instances"].items() if instance["kind"] in WHOLE]
    if found:
        raise ConfigError(
            f"{found[0]} is quantized dynamically, or in its weights alone, and the target 'onednn' has no kernel for "
            "that; use the target 'native', or leave such layers out of the mapping"
        )


LOWERED: dict[str, tuple[Step, ...]] = {"native": NATIVE, "onednn": ONEDNN}
TARGETS = (*LOWERED, "reference")


@no_collections()
@torch.no_grad()
def convert_fx(
    graph_module: GraphModule,
    convert_custom_config: ConvertCustomConfig | dict[str, Any] | None = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: QConfigMapping | dict[str, Any] | None = None,
    backend_config: BackendConfig | dict[str, Any] | None = None,
    keep_original_weights: bool = False,
    *,
    target: str | None = None,
    strict: bool = False,
    passes: dict[str, list[Step]] | None = None,
) -> QuantizedGraphModule:
    """Convert a calibrated model to integer kernels.

    Args:
        graph_module: what `prepare_fx` returned, after calibration. Not changed.
        convert_custom_config: attributes to keep.
        _remove_qconfig: take the ``qconfig`` that ``prepare_fx`` gave them from modules that stay. True by default.
        qconfig_mapping: leaves layers out after all: the entries of the mapping for prepare, each with the same
            configuration or None, and any further ones with None. None as a whole quantizes all that was prepared.
        backend_config: accepted for the original's sake.
        keep_original_weights: the result's ``original_weights_lookup`` has the float weight and bias (None for none) of
            each layer spelled as a function, by the name of its packed weight.
        target: ``"native"`` (default: PyTorch's quantized kernels, the engine chosen layer by layer while
            ``torch.backends.quantized.engine`` is ``"x86"``), ``"onednn"`` (plain ``uint8`` and ``int8`` tensors, none
            of torch's deprecated quantized dtypes) or ``"reference"``.
        strict: an operator that was to be quantized and is not, by `prepare_fx` or because no kernel takes it, and
            doubtful statistics are errors.
        passes: your own passes, by the stage after which they run: ``"convert"`` (the reference graph) or ``"lower"``
            (what is left of it once the target has taken its part).

    Returns:
        A `QuantizedGraphModule`; ``plan["kernels"]`` names the kernel of each lowered node.

    Raises:
        ConfigError: no such target or stage, something that is not built, or a model on another device than the CPU.
        DowngradeError: `strict`, and something stays float that was to be quantized.

    Example:
        >>> import torch, qfx
        >>> x = torch.randn(8, 4)
        >>> prepared = qfx.prepare_fx(torch.nn.Linear(4, 4).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
        >>> _ = prepared(x)
        >>> int8 = qfx.convert_fx(prepared)
        >>> int8(x).shape
        torch.Size([8, 4])
    """
    chosen = target or "native"
    if chosen not in TARGETS:
        raise ConfigError(f"there is no target {chosen!r}; use one of {', '.join(TARGETS)}")

    def inner(module: GraphModule) -> GraphModule:
        return convert_fx(module, convert_custom_config, _remove_qconfig, target=target, strict=strict, passes=passes)

    prepared = _observed(graph_module)
    if chosen != "reference":
        _refuse_devices(prepared)
    context, converted = _reference(
        prepared, convert_custom_config, qconfig_mapping, strict, inner, lowered=chosen != "reference"
    )
    if chosen == "onednn":
        _refuse_for_plain_integers(context)
    read = chosen == "reference" or (passes is not None and "convert" in passes)
    own = FunctionPass("own parameters", converted.own_parameters)
    stages: dict[str, tuple[Step, ...]] = {
        "convert": (FETCH, own) if read else (),
        "lower": (*LOWERED.get(chosen, ()), own),
    }
    steps = with_passes(stages, passes)
    if steps:
        gm: Any = context.view.gm
        run_steps(gm, Pipeline("lower", steps, given=frozenset({"converted"})).steps, context)
        plain_names(gm.graph)
        if chosen != "reference":
            check_lowered(gm, context, strict)
    made = _finished(context, _remove_qconfig)
    if keep_original_weights:
        made.__dict__["original_weights_lookup"] = original_weights(prepared, made)
    return made
