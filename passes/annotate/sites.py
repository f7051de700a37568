"""From instances to solved specs: who is observed, who shares, what is derived."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from qfx.config import QConfig, observer_facts, reuses_input
from qfx.dtypes import quantized_dtype
from qfx.errors import ConfigError
from qfx.graph import GraphView, Param
from qfx.graph.provenance import describe
from qfx.ops import Op
from qfx.passes.annotate.inputs import activations, parameter_slots, weight_and_bias
from qfx.passes.annotate.instances import Found, Instance, Left
from qfx.passes.annotate.tensors import is_split
from qfx.passes.interface import Interface
from qfx.qparams import product_scale
from qfx.specs import Solution, Spec, SpecBook, Ticket


@dataclass(slots=True)
class Sites:
    """What was asked of the graph.

    Attributes:
        book: the specs.
        tickets: value -> its ticket, for values observed where they are made.
        own: values observed as the output of an instance; every reader sees them quantized.
        readers: value -> instance roots that read it quantized, for values only observed on behalf of readers.
        edges: (value, root) observed again for one reader, whose spec differs.
        given: values that are quantized already; nobody observes them.
        selected: values picked out of another one, which has their parameters; they are not observed again.
        weights: functional weight -> factory of an observer -> the op that reads it so, and the roots that do.
    """

    book: SpecBook = field(default_factory=SpecBook)
    tickets: dict[Node, Ticket] = field(default_factory=dict)
    own: set[Node] = field(default_factory=set)
    readers: dict[Node, list[Node]] = field(default_factory=dict)
    edges: dict[tuple[Node, Node], Ticket] = field(default_factory=dict)
    weights: dict[Node, dict[Any, tuple[Op, list[Node]]]] = field(default_factory=dict)
    given: set[Node] = field(default_factory=set)
    selected: set[Node] = field(default_factory=set)
    solution: Solution | None = None
    _specs: dict[Ticket, Spec] = field(default_factory=dict)
    _carried: dict[Node, Node] = field(default_factory=dict)


def place(
    view: GraphView,
    found: Found,
    fallback: QConfig | None,
    crossing: Interface | None = None,
    *,
    selections: Collection[Any] = (),
) -> Sites:
    """Ask for every site, in graph order, and solve.

    Args:
        view: the graph.
        found: the instances.
        fallback: observes the input of an op whose own observer is fixed (sigmoid's knows only its output's range).
        crossing: what enters or leaves the graph quantized.
        selections: patterns of ops whose result is not observed again, as it is picked out of their input.
    """
    sites, crossing = Sites(), crossing or Interface()
    sites.given = crossing.given
    for node in view.gm.graph.nodes:
        instance = found.of.get(node)
        if node in crossing.takes:
            _taken(sites, crossing, node)
        if instance is None:
            continue
        if node is instance.root:
            if reuses_input(instance.qconfig) and not _is_observed(view, sites, instance):
                for member in instance.nodes:
                    found.of.pop(member, None)
                    found.left[member.name] = Left(
                        f"it reuses its input's parameters, and that has none ({instance.why})"
                    )
                continue
            if instance.kind == "dynamic":
                _first_input(view, sites, instance)
            elif instance.kind != "weight":
                _inputs(view, sites, instance, fallback)
        if node is instance.anchor and instance.kind in ("own", "same"):
            _output(view, sites, instance, selections)
    sites.solution = sites.book.solve()
    return sites


def _is_observed(view: GraphView, sites: Sites, instance: Instance) -> bool:
    inputs = activations(view, instance.root, instance.roles)
    return all(sites._carried.get(value, value) in sites.tickets for _, value in inputs)


def _inputs(view: GraphView, sites: Sites, instance: Instance, fallback: QConfig | None) -> None:
    owner = f"{instance.pattern} at {instance.root.name}"
    spec = _spec(instance.qconfig.activation)
    if observer_facts(instance.qconfig.activation).scale is not None and fallback is not None:
        spec = _spec(fallback.activation)
    shared: list[Ticket] = []
    for slot, value in activations(view, instance.root, instance.roles):
        if reuses_input(instance.qconfig):
            spec = sites._specs[sites.tickets[sites._carried.get(value, value)]]
        ticket = _value(sites, instance.root, slot, value, spec, owner)
        if instance.kind == "same" and shared and sites._specs[shared[0]] != sites._specs[ticket]:
            # Two observers that cannot be one (a fixed range, say): this reader sees the value through its own.
            ticket = _edge(sites, instance.root, slot, value, sites._specs[shared[0]], owner)
        shared.append(ticket)
    if instance.kind == "same":
        for other in shared[1:]:
            sites.book.share(shared[0], other, owner=owner)
    if instance.weighted:
        _weight(view, sites, instance, shared[0], owner)


def _first_input(view: GraphView, sites: Sites, instance: Instance) -> None:
    """What is quantized when the model runs: the first input of the layer, seen by this layer only."""
    owner = f"{instance.pattern} at {instance.root.name}"
    slot, value = next(activations(view, instance.root, instance.roles))
    _edge(sites, instance.root, slot, value, _spec(instance.qconfig.activation), owner)
    if instance.root.op != "call_module":
        _functional_weight(view, sites, instance)


def _taken(sites: Sites, crossing: Interface, node: Node) -> None:
    """The inputs a node wants quantized, and the result of a module that keeps its observer by itself."""
    qconfig, owner = crossing.qconfigs.get(node), f"quantized inputs of {node.name}"
    if qconfig is None:
        raise ConfigError(
            f"{describe(node)} wants quantized values, and the mapping has no global configuration for it"
        )
    for index, value in enumerate(crossing.inputs(node)):
        _value(sites, node, f"q{index}", value, _spec(qconfig.activation), owner)
    if node in crossing.watched:
        spec = _spec(qconfig.activation)
        ticket = sites.book.output(node.name, spec, owner=owner)
        sites._specs[ticket] = spec
        sites.tickets[node] = ticket
        sites.own.add(node)


def _value(sites: Sites, root: Node, slot: str, value: Node, spec: Spec, owner: str) -> Ticket:
    source = sites._carried.get(value, value)
    known = sites.tickets.get(source)
    if known is not None:
        if sites._specs[known].dtype != spec.dtype:
            return _edge(sites, root, slot, source, spec, owner)
        if source not in sites.own and source not in sites.given:
            sites.readers[source].append(root)
        return known
    ticket = sites.book.output(source.name, spec, owner=owner)
    sites._specs[ticket] = spec
    sites.tickets[source] = ticket
    sites.readers[source] = [] if source in sites.given else [root]
    return ticket


def _edge(sites: Sites, root: Node, slot: str, value: Node, spec: Spec, owner: str) -> Ticket:
    ticket = sites.book.site(root.name, f"{slot}:{value.name}", spec, owner=owner)
    sites._specs[ticket] = spec
    sites.edges[value, root] = ticket
    if root in sites.readers.get(value, ()):
        sites.readers[value].remove(root)
    return ticket


def _weight(view: GraphView, sites: Sites, instance: Instance, activation: Ticket, owner: str) -> None:
    spec = _spec(instance.qconfig.weight)
    weight = sites.book.site(instance.root.name, "w", spec, owner=owner)
    bias = None
    if instance.root.op != "call_module":
        bias = _functional_weight(view, sites, instance)
    else:
        module = view.module(str(instance.root.target))
        bias = getattr(next(iter(module._modules.values()), module), "bias", None)
    if spec.dtype is torch.float16:
        _half_bias(view, sites, instance, bias)
        return
    sites.book.derive(
        instance.root.name,
        "b",
        dtype=torch.qint32,
        sources=(activation, weight),
        qparams=product_scale,
        owner=owner,
        dormant=bias is None,
    )


def _half_bias(view: GraphView, sites: Sites, instance: Instance, bias: Any) -> None:
    """The bias of a function is rounded as its weight is, where that is half floats."""
    if instance.root.op != "call_module" and isinstance(bias, Param):
        node, op = _fetched(view, instance.root, bias), view.read(instance.root).op
        sites.weights.setdefault(node, {}).setdefault(instance.qconfig.weight, (op, []))[1].append(instance.root)


def _fetched(view: GraphView, root: Node, param: Param) -> Node:
    """The node a function reads a constant from; where that is no nn.Parameter, several fetch it."""
    found = next((each for each in root.all_input_nodes if view.value(each) is param), param.node)
    assert found is not None
    return found


def _functional_weight(view: GraphView, sites: Sites, instance: Instance) -> Any:
    """Have the weight of a layer spelled as a function observed; returns its bias."""
    found, bias = weight_and_bias(view, instance.root, instance.roles)
    node = _fetched(view, instance.root, found) if isinstance(found, Param) else found
    assert isinstance(node, Node)
    if parameter_slots(view, instance.root, node, instance.roles):  # one that is the layer's input, too, stays that
        factories, op = sites.weights.setdefault(node, {}), view.read(instance.root).op
        factories.setdefault(instance.qconfig.weight, (op, []))[1].append(instance.root)
    return bias


def _output(view: GraphView, sites: Sites, instance: Instance, selections: Collection[Any]) -> None:
    owner = f"{instance.pattern} at {instance.root.name}"
    anchor = instance.anchor
    if instance.kind == "own" and not reuses_input(instance.qconfig):
        spec = _spec(instance.qconfig.activation)
        ticket = sites.book.output(anchor.name, spec, owner=owner)
    else:
        _, first = next(activations(view, instance.root, instance.roles))
        source = sites._carried.get(first, first)
        before = sites.edges.get((source, instance.root)) or sites.tickets[source]
        if is_split(view.read(instance.root)):
            sites._carried[anchor] = source
            return
        spec = sites._specs[before]
        ticket = sites.book.output(anchor.name, spec, owner=owner)
        sites.book.share(before, ticket, owner=owner)
        if instance.backend_pattern.config.pattern in selections and anchor is instance.root:
            sites.selected.add(anchor)
    sites._specs[ticket] = spec
    sites.tickets[anchor] = ticket
    sites.own.add(anchor)


def _spec(factory: Any) -> Spec:
    facts = observer_facts(factory)
    dtype = facts.dtype or torch.float32
    return Spec(quantized_dtype(dtype) or dtype, factory, facts.qscheme)
