"""Find what a backend can quantize: one instance a matched pattern, with its configuration and the reason if not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.fx import Node

from qfx.config import (
    BackendPatternConfig,
    DTypeConfig,
    ObservationType,
    ObserverFacts,
    QConfig,
    Resolved,
    first_supported,
    observer_facts,
    reuses_input,
)
from qfx.graph import GraphView, Param, Reading
from qfx.graph.hooks import hook_names, hooks_of
from qfx.nn.qat.module import QATModule
from qfx.passes.annotate.choices import choice
from qfx.passes.annotate.inputs import PARAMETERS, activations, parameter_slots
from qfx.passes.annotate.tensors import is_item, is_split, sequences, takes_part
from qfx.passes.annotate.weighted import computed_weight, has_own_kernel, has_weight, is_empty, reads_indices
from qfx.passes.annotate.writes import Written, written
from qfx.passes.backend_pattern import BackendPattern
from qfx.patterns import Index
from qfx.patterns.matcher import match

Kind = Literal["own", "same", "dynamic", "weight"]

MOST_CLAMPS = 2
"""As many as a kernel takes with it; see `qfx.patterns.catalogue.quantized.clamps`."""

COMPUTED = "its weight is computed ({}), and kernels take a constant"
"""Why no target lowers a layer; a reference graph quantizes its weight all the same."""


@dataclass(slots=True)
class Instance:
    """A pattern of the backend found in the graph, to be quantized.

    Attributes:
        root: the node whose inputs are quantized (the convolution of a conv-relu).
        anchor: the node whose output is quantized.
        nodes: all of them, root first.
        backend_pattern: the backend's pattern.
        qconfig: the user's configuration of the root, and `why`, the line that decided it.
        kind: the output has an observer of its ``own``, or the ``same`` parameters as the input; or the input gets its
            scale when the model runs (``dynamic``), or nothing but the ``weight`` is quantized; the output is float.
        weighted: the root has a weight to quantize.
        computed: name of the node that computes this weight; None for a constant one, which kernels need.
    """

    root: Node
    anchor: Node
    nodes: tuple[Node, ...]
    backend_pattern: BackendPattern
    qconfig: QConfig
    why: str
    kind: Kind
    weighted: bool
    computed: str | None = None

    @property
    def roles(self) -> Mapping[str, int]:
        """Where an op this library does not know has its weight and bias."""
        return self.backend_pattern.config._input_type_to_index

    @property
    def pattern(self) -> str:
        """The backend's pattern in words: ``Conv2d > ReLU``."""
        return self.backend_pattern.shown


@dataclass(frozen=True, slots=True)
class Left:
    """Why a node stays float.

    Attributes:
        why: one clause for a report.
        downgrade: a pattern of the backend matches it and the mapping wants it quantized, but its configuration is
            ``"refused"`` by the backend, or its weight is ``"empty"``. None where nothing was to be quantized.
    """

    why: str
    downgrade: Literal["refused", "empty"] | None = None


@dataclass(slots=True)
class Found:
    """Instances by each of their nodes; by name, the nodes that stay float."""

    of: dict[Node, Instance] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)


def find(view: GraphView, index: Index[BackendPattern], no_floats: set[Node]) -> Found:
    """Sweep the graph in reverse, longest pattern first; then let clamps join what they follow.

    Args:
        view: the graph, with a `choice` in the metadata of every call.
        index: the backend's patterns.
        no_floats: nodes that are no float tensors; nothing that reads one is quantized.
    """
    found, parts, writes = Found(), sequences(view), written(view)
    fixed, computing = _constant_expressions(view), dict[Node, str]()
    for node in reversed(view.gm.graph.nodes):
        if node in found.of or node in no_floats or not node.op.startswith("call"):
            continue
        said = _parameter_of(view, node, computing) if node in fixed else None
        if said is not None:
            computing[node] = said
        strangers = _of_strangers(view, node, no_floats)
        said = said or strangers or _of_a_sequence(view, node, parts)
        if said is not None:
            found.left[node.name] = Left(said)
            continue
        instance = _instance(view, index, node, found, writes, no_floats)
        if instance is not None:
            for member in instance.nodes:
                found.of[member] = instance
                found.left.pop(member.name, None)
    for node in view.gm.graph.nodes:
        instance = found.of.get(node)
        if instance is not None and instance.anchor is node and instance.kind == "own":
            absorb(view, found, instance)
    return found


def _constant_expressions(view: GraphView) -> set[Node]:
    """Calls that compute with parameters, buffers and numbers only."""
    found: set[Node] = set()
    for node in view.gm.graph.nodes:
        sources = node.all_input_nodes
        if node.op.startswith("call") and sources and all(s.op == "get_attr" or s in found for s in sources):
            found.add(node)
    return found


def _parameter_of(view: GraphView, node: Node, computing: dict[Node, str]) -> str | None:
    """Why a constant expression is left alone that computes a layer's weight or another parameter; None if it does not.

    Quantized on the way, the weight would have the few digits of an activation.
    """
    said: str | None = None
    for user in node.users:
        slots = parameter_slots(view, user, node)
        if user not in computing and not slots:
            return None
        said = computing.get(user) or f"it computes the {PARAMETERS[min(slots)]} of {user}"
    return said


def _of_strangers(view: GraphView, node: Node, no_floats: set[Node]) -> str | None:
    """Why a node that computes with something else than float tensors is left alone; None for every other."""
    values = [source for _, source in activations(view, node)]
    if has_own_kernel(view, node):  # a table reads integers; the state of an LSTM is a pair, of which nothing is asked
        values = [] if reads_indices(view, node) else values[:1]
    strangers = [source.name for source in values if source in no_floats]
    if not strangers:
        return None
    if is_item(view, node, no_floats):
        return "it takes an item out of an input, and computes no float tensor"
    return f"{', '.join(strangers)} is no float tensor"


def _of_a_sequence(view: GraphView, node: Node, parts: set[Node]) -> str | None:
    """Why a node that takes several tensors as one value of the graph is left alone; None for every other."""
    reading = view.read(node)
    if reading.op.name == "getitem":
        source = node.args[0]
        if not isinstance(source, Node) or not takes_part(view, node, parts):
            return None
        # One item of a split is a tensor like any other.
        if not is_split(view.read(source)) or not isinstance(node.args[1], int):
            return f"it takes a part of what {source} returns, and computes no float tensor"
    elif any(name.endswith("*") for name in reading.op.inputs) and not reading.op.opaque:
        strangers = [value for value in reading.inputs if isinstance(value, Node)]
        if strangers:
            return f"the tensors it takes are one value of the graph, {strangers[0]}"
    return None


def _altered(view: GraphView, node: Node) -> str | None:
    """Why a layer is not what its class says: it has hooks, or computes its parameters; None for every other node."""
    if node.op != "call_module":
        return None
    module = view.module(str(node.target))
    if hooks_of(module):
        return (
            f"it has forward hooks ({hook_names(module)}), which no kernel calls; remove them, or make what they "
            "compute permanent (torch.nn.utils.remove_weight_norm, prune.remove ...)"
        )
    # Asked of the table, where torch.nn.utils.parametrize puts it: nn.Module searches long for what is not there
    if "parametrizations" in module._modules:
        plain, names = type(module).__bases__[0].__name__, ", ".join(module.parametrizations)  # type: ignore[arg-type]
        return (
            f"its {names} is computed by a parametrization; torch.nn.utils.parametrize.remove_parametrizations makes "
            f"it a plain {plain}"
        )
    return None


def _instance(
    view: GraphView, index: Index[BackendPattern], node: Node, found: Found, writes: Written, no_floats: set[Node]
) -> Instance | None:
    altered = _altered(view, node)
    if altered is not None:
        resolved = choice(node)
        wanted = resolved is not None and resolved.qconfig is not None
        ours = type(view.module(str(node.target))).__module__.startswith(("torch.nn.", "qfx.nn."))
        found.left[node.name] = Left(altered, "refused" if wanted and ours else None)
        return None
    left: Left | None = None
    for pattern, backend_pattern in index.candidates(view, node):
        outcome, config = match(pattern, view, node), backend_pattern.config
        if outcome.match is None:
            continue
        root = view.read(backend_pattern.root(outcome.match))
        if config.observation_type is ObservationType.INPUT_OUTPUT_NOT_OBSERVED and not has_weight(view, root, config):
            return None
        resolved = choice(root.node)
        kept = _unfit(view, root, node, config, writes, no_floats) or _suits(view, root, config, resolved)
        if isinstance(kept, Left):
            left = kept
            continue
        assert resolved is not None
        assert resolved.qconfig is not None
        weighted = has_weight(view, root, config)
        nodes = tuple(sorted(outcome.match.nodes, key=lambda n: n is not root.node))
        return Instance(
            root.node,
            node,
            nodes,
            backend_pattern,
            resolved.qconfig,
            resolved.why,
            _kind(config, kept, weighted),
            weighted,
            computed_weight(root),
        )
    found.left[node.name] = left or Left(f"no pattern of the backend has {view.read(node).op.name} as its last op")
    return None


def _unfit(
    view: GraphView,
    root: Reading,
    anchor: Node,
    config: BackendPatternConfig,
    writes: Written,
    no_floats: set[Node],
) -> Left | None:
    """What in the graph keeps a matched op float; None if nothing does."""
    roles = config._input_type_to_index
    said = _of_strangers(view, root.node, no_floats)
    if said is None and next(activations(view, root.node, roles), None) is None:
        said = "it has no tensor input"
    said = said or writes.refusal(view, root.node, anchor, roles)
    return None if said is None else Left(said)


def _suits(
    view: GraphView, root: Reading, config: BackendPatternConfig, resolved: Resolved | None
) -> Left | DTypeConfig:
    """The dtypes of the backend that suit; or what in the configuration keeps an op float, or cannot be honoured."""
    if resolved is None or resolved.qconfig is None:
        return Left(
            f"the config leaves it float ({resolved.why if resolved is not None else 'nothing in the mapping'})"
        )
    weighted = has_weight(view, root, config)
    if _asks_for_floats(resolved.qconfig, weighted):
        return Left(f"the config leaves it float ({resolved.why})")
    suits, refusal = first_supported(resolved.qconfig, config.dtype_configs, has_weight=weighted)
    if refusal is None and _is_trained(view, root):
        kind = type(view.module(str(root.node.target))).__name__
        refusal = f"{kind} is a module for training; not built yet here"
    if refusal is not None and reads_indices(view, root.node):
        return Left(
            f"its inputs are indices, so only its table can be quantized, by float_qparams_weight_only_qconfig "
            f"({resolved.why})"
        )
    if suits is None or refusal is not None:
        return Left(f"{refusal} ({resolved.why})", "refused")
    computed, kind = computed_weight(root), _kind(config, suits, weighted)
    if computed is not None and (kind != "own" or suits.weight_dtype is torch.float16):
        return Left(COMPUTED.format(computed), "refused")
    if weighted and is_empty(view, root):
        return Left("its weight has no elements, so there is nothing to quantize", "empty")
    return suits


def _asks_for_floats(qconfig: QConfig, weighted: bool) -> bool:
    """Whether a configuration wants nothing quantized of such an op: a dynamic or weight-only one, without a weight."""
    activation, weight = observer_facts(qconfig.activation), observer_facts(qconfig.weight)
    if reuses_input(qconfig):
        return False
    floats = activation.is_dynamic or _is_float(activation)
    return floats and (not weighted or (not activation.is_dynamic and _is_float(weight)))


def _is_float(facts: ObserverFacts) -> bool:
    return facts.dtype in (None, torch.float32)


def _is_trained(view: GraphView, root: Reading) -> bool:
    """Whether a node calls a module of quantization-aware training, which carries its own observer of the weight."""
    return root.node.op == "call_module" and isinstance(view.module(str(root.node.target)), QATModule)


def _kind(config: BackendPatternConfig, suits: DTypeConfig, weighted: bool) -> Kind:
    if suits.is_dynamic:
        return "dynamic"
    unseen = config.observation_type is ObservationType.INPUT_OUTPUT_NOT_OBSERVED
    if unseen or (weighted and suits.input_dtype is torch.float32):
        return "weight"
    if config._num_tensor_args_to_observation_type:
        # The original lets a tensor and a number share the input's observer, which spreads the input's scale over the
        # result's range: times 100 costs it two digits. Here the result has a range of its own.
        return "own"
    return "same" if config.observation_type is ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT else "own"


def absorb(view: GraphView, found: Found, instance: Instance) -> None:
    """Move the end of an instance behind the clamps that follow it: the value before a clamp is never observed.

    The range is then the clamped one. A clamp the config leaves float, or whose input others see, is not taken; nor is
    one after `MOST_CLAMPS` of them, which clamps codes instead.
    """
    taken = sum(view.read(node).op.clamp for node in instance.nodes if node is not instance.root)
    while len(instance.anchor.users) == 1 and taken < MOST_CLAMPS:
        taken += 1
        (user,) = instance.anchor.users
        clamp = found.of.get(user)
        if clamp is None or clamp.nodes != (user,) or not view.read(user).op.clamp:
            return
        if any(isinstance(value, Node | Param) for value in view.read(user).attrs.values()):
            return
        instance.anchor, instance.nodes = user, (*instance.nodes, user)
        found.of[user] = instance
