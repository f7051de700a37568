"""Modules of a model that are quantized on their own: standalone ones, and a user's classes with quantized forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from qfx.api.modules import ObservedGraphModule, ObservedStandaloneGraphModule
from qfx.config import PrepareCustomConfig, QConfigMapping, QuantType
from qfx.config.custom_config import StandaloneModuleConfigEntry
from qfx.errors import ConfigError
from qfx.graph.nodes import erase_node
from qfx.passes.annotate.choices import choice, inner_choices
from qfx.passes.interface import Interface, hand_out, open_up, placeholders, results
from qfx.passes.observe import KEY
from qfx.passes.pipeline import Context
from qfx.passes.tuples import at, crossing_of, leaves, open_tuples

Prepare = Callable[[nn.Module, Any, Any, Any, Any], ObservedGraphModule]


def whole_names(custom: PrepareCustomConfig) -> list[str]:
    """Paths of modules to keep whole when the model is traced."""
    return [*custom.non_traceable_module_names, *custom.standalone_module_names]


def whole_classes(custom: PrepareCustomConfig) -> list[Any]:
    """Classes to keep whole when the model is traced."""
    own = [cls for table in custom.float_to_observed_mapping.values() for cls in table]
    return [*custom.non_traceable_module_classes, *custom.standalone_module_classes, *own]


def interface(context: Context, custom: PrepareCustomConfig, mapping: QConfigMapping) -> Interface:
    """What crosses the edges of a graph quantized, as a user asks for it.

    Raises:
        ConfigError: an index names no input or output.
    """
    found, graph = Interface(), context.rewriter.gm.graph
    found.given.update(placeholders(graph.nodes, custom.input_quantized_indexes))
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    if custom.output_quantized_indexes:
        values = results(output)
        found.takes[output] = tuple(
            path for index in custom.output_quantized_indexes for path in leaves((index,), at(values, (index,)))
        )
        found.qconfigs[output] = mapping.global_qconfig
        found.inputs(output)
    return found


def prepare_standalone(
    context: Context, custom: PrepareCustomConfig, mapping: QConfigMapping, found: Interface, prepare: Prepare
) -> None:
    """Prepare every standalone module, and note what it takes and gives quantized.

    Args:
        context: the graph.
        custom: which modules.
        mapping: for those without one of their own.
        found: is added to.
        prepare: prepares one, given it, mapping, example inputs, custom config and backend config.
    """
    made: dict[nn.Module, tuple[nn.Module, PrepareCustomConfig]] = {}
    for node in context.rewriter.gm.graph.find_nodes(op="call_module"):
        path = str(node.target)
        module = context.view.module(path)
        entry = custom.standalone_module_names.get(path) or custom.standalone_module_classes.get(type(module))
        known = next((pair for pair in made.values() if pair[0] is module), None)
        if entry is None and known is None:
            continue
        if known is None:
            assert entry is not None
            known = made[module] = _standalone(node, module, entry, mapping, prepare)
            context.rewriter.install(path, known[0])
            context.view.forget(node)
            found.standalone.append(path)
        inside = known[1]
        if inside.output_quantized_indexes:
            if inside.output_quantized_indexes != [0]:
                raise ConfigError(f"standalone module {path}: only output 0 can be quantized")
            found.given.add(node)
        if inside.input_quantized_indexes:
            found.takes[node] = tuple((index,) for index in inside.input_quantized_indexes)
            decided = choice(node)
            found.qconfigs[node] = (decided.qconfig if decided is not None else None) or mapping.global_qconfig


def _standalone(
    node: Node, module: nn.Module, entry: StandaloneModuleConfigEntry, mapping: QConfigMapping, prepare: Prepare
) -> tuple[nn.Module, PrepareCustomConfig]:
    own = entry.qconfig_mapping
    if own is None:
        decided = choice(node)
        own = QConfigMapping().set_global(decided.qconfig if decided is not None else mapping.global_qconfig)
    inside = entry.prepare_custom_config or PrepareCustomConfig()
    made = prepare(module, own, entry.example_inputs, inside, entry.backend_config)
    return ObservedStandaloneGraphModule.adopt(made), inside


def observe_custom(context: Context, custom: PrepareCustomConfig, mapping: QConfigMapping, found: Interface) -> None:
    """Put the observed form of a user's class in the place of the float one, where the config quantizes it."""
    for kind, table in custom.float_to_observed_mapping.items():
        seen: dict[str, Any] = {}  # a module may be called twice
        for node in context.rewriter.gm.graph.find_nodes(op="call_module"):
            path, decided = str(node.target), choice(node)
            module: Any = context.view.module(path)
            if (path not in seen and type(module) not in table) or decided is None or decided.qconfig is None:
                continue
            if path not in seen:
                _configure(module, path, decided.qconfig, mapping)
                seen[path] = table[type(module)].from_float(module)  # type: ignore[attr-defined]
                seen[path].qconfig = decided.qconfig
                context.rewriter.install(path, seen[path])
            made = seen[path]
            context.view.forget(node)
            if kind != QuantType.STATIC:
                continue
            found.qconfigs[node] = decided.qconfig
            crossing = crossing_of(made)
            if crossing is None:
                found.takes[node] = ((0,),)
                found.watched.add(node)
            else:
                takes, parts = open_tuples(context, node, crossing)
                found.takes[node], found.parts[node] = tuple(takes), tuple(parts)
                found.given.update(parts)


def _configure(module: nn.Module, path: str, qconfig: Any, mapping: QConfigMapping) -> None:
    """Give a user's module its configuration, and those inside it theirs: it may quantize them by their own classes."""
    module.qconfig = qconfig
    for inner, found in inner_choices(module, path, mapping):
        inner.qconfig = found.qconfig  # type: ignore[assignment]


def before_conversion(context: Context, plan: dict[str, Any], table: dict[QuantType, dict[Any, Any]]) -> None:
    """Quantize a user's observed modules, and let quantized values in.

    Args:
        context: the graph under conversion, its observers still in it.
        plan: what prepare found out.
        table: observed class -> quantized class, by kind.
    """
    classes = {cls: (made, kind) for kind, rows in table.items() for cls, made in rows.items()}
    gm: Any = context.rewriter.gm
    quantized: set[str] = set()
    calls: dict[str, nn.Module] = {}  # a module may be called twice
    for node in list(gm.graph.find_nodes(op="call_module")):
        path = str(node.target)
        module: Any = calls[path] if path in calls else context.view.module(path)
        if type(module) not in classes:
            continue
        made, kind = classes[type(module)]
        if kind == QuantType.STATIC and node.name in plan["parts"]:
            quantized.add(node.name)
        elif kind == QuantType.STATIC and node.name in plan["watched"]:
            observer = _watch(context, node)
            if observer is not None and path not in calls:
                module.activation_post_process = observer
            plan["given"].append(node.name)
        if path not in calls:
            context.rewriter.install(path, made.from_observed(module))
            calls[path] = module
        context.view.forget(node)
    # An observed module without a quantized form is a float one
    floats = [part for name, parts in plan["parts"].items() if name not in quantized for part in parts]
    plan["given"] = [name for name in plan["given"] if name not in floats]

    def takes_codes(name: str) -> bool:
        if name in plan["parts"]:
            return name in quantized
        return name not in plan["watched"] or name in plan["given"]

    plan["takes"] = {name: paths for name, paths in plan["takes"].items() if takes_codes(name)}
    open_up(context, plan)


def after_conversion(context: Context, plan: dict[str, Any], convert: Callable[[Any], GraphModule]) -> None:
    """Let quantized values out, and convert standalone modules.

    Args:
        context: the reference graph.
        plan: what prepare found out.
        convert: converts one, to what the model is converted to.
    """
    hand_out(context, plan)
    converted: dict[nn.Module, nn.Module] = {}
    for path in plan["standalone"]:
        module: Any = context.view.module(path)
        if module not in converted:
            converted[module] = convert(module)
        context.rewriter.install(path, converted[module])
    crossing = {*plan["takes"], *plan["given"]}
    for node in context.rewriter.gm.graph.find_nodes(op="call_module") if crossing else ():
        if node.name in crossing:
            context.view.forget(node)


def _watch(context: Context, node: Node) -> Any:
    """Take away the observer behind a node, which a module is to keep by itself; returns the observer, or None."""
    g = context.rewriter
    for user in list(node.users):
        if KEY in user.meta:
            observer = context.view.module(str(user.target))
            user.replace_all_uses_with(node)
            path = str(user.target)
            context.view.forget(user, erased=True)
            erase_node(g.gm.graph, user)
            delattr(g.gm, path)
            return observer
    return None
