"""What became of every node, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.errors import ConfigError
from qfx.graph import GraphView
from qfx.graph.kept import KeptGraphModule
from qfx.graph.provenance import origins
from qfx.kernels.reference import overflow_risk
from qfx.passes.halves import HALF_KEY
from qfx.passes.observe import seen_shapes
from qfx.passes.reach import reach_of
from qfx.passes.rewriter import KERNEL_KEY, SUMS_KEY
from qfx.report.macs import count

Overflow = Literal["", "inside", "beyond"]
Status = Literal["integer", "boundary", "float", "observed", "input", "output"]

_RULE, _OBSERVES = "qfx_rule", "qfx_observes"
_BOUNDARY = ("quantize_per_tensor", "quantize_per_channel", "quantize", "dequantize", "through_integers")


@dataclass(frozen=True)
class Entry:
    """One node.

    Attributes:
        node: its name in the graph.
        op: what it computes, in the field's word.
        status: ``integer`` (a kernel on codes), ``boundary`` (quantize, dequantize), ``float``, ``observed`` (an
            observer), ``input``, ``output``.
        kernel: the kernel, for integer nodes.
        rule: the rule that made the node.
        reasons: why it is float; empty for the rest.
        notes: doubtful statistics, overflow risk.
        overflow: whether sums of products could exceed 16 bits, on every CPU or without VNNI (its note says which): for
            inputs ``inside`` the observed range, or only for those ``beyond`` it; empty for neither.
        stands_for: the user's nodes it stands for.
        line: the user's source line of the last of them.
        macs: multiply-accumulates for one sample (a picture, a row of features; not for the whole batch), 0 for what
            multiplies no matrices, None where nothing tells how many there are.
    """

    node: str
    op: str
    status: Status
    kernel: str = ""
    rule: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    overflow: Overflow = ""
    stands_for: tuple[str, ...] = ()
    line: str = ""
    macs: int | None = 0

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain data."""
        return asdict(self)


class _Facts:
    """The plan of a graph module; tables are empty where a stage has not run."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.float: dict[str, str] = plan.get("float", {})
        self.unlowered: dict[str, list[str]] = plan.get("unlowered", {})
        self.lowered = "kernels" in plan
        self.problems: dict[str, list[str]] = plan.get("problems", {})
        self.shapes: dict[str, list[int]] = plan.get("shapes", {})
        # A rewritten node is found again by the user's nodes it stands for.
        self._by_origin = {
            name: each for each in plan.get("instances", {}).values() for name in each.get("origins", ())
        }

    def instance(self, node: Node) -> dict[str, Any] | None:
        """The instance of the plan a node belongs to."""
        found = (self._by_origin.get(origin.name) for origin in origins(node))
        return next((each for each in found if each is not None), None)


def entries(gm: nn.Module) -> list[Entry]:
    """One `Entry` for every node but constants.

    Raises:
        ConfigError: `gm` is none of the graph modules qfx returns.
    """
    if not isinstance(gm, KeptGraphModule):
        raise ConfigError(f"explain and summary take what prepare_fx or convert_fx returned, got {type(gm).__name__}")
    facts, view = _Facts(gm.plan), GraphView(gm)
    # A prepared model has not asked its observers yet.
    macs = count(view, facts.shapes or seen_shapes(gm), facts.instance)
    return [_entry(view, node, facts, macs.get(node, 0)) for node in gm.graph.nodes if node.op != "get_attr"]


def _entry(view: GraphView, node: Node, facts: _Facts, macs: int | None) -> Entry:
    known = origins(node)
    status, kernel = _status(view, node)
    reasons: tuple[str, ...] = ()
    if status == "float":
        reasons = tuple(facts.unlowered.get(node.name, ())) or (_reason(node, facts),)
    overflow, risk = _overflow(view, node)
    return Entry(
        node=node.name,
        op=view.read(node).op.name,
        status=status,
        kernel=kernel,
        rule=node.meta.get(_RULE, ""),
        reasons=reasons,
        notes=(*_notes(node, facts), *risk),
        overflow=overflow,
        stands_for=tuple(origin.name for origin in known),
        line=next((origin.line for origin in reversed(known) if origin.line), ""),
        macs=macs,
    )


def _status(view: GraphView, node: Node) -> tuple[Status, str]:
    if node.op == "placeholder":
        return "input", ""
    if node.op == "output":
        return "output", ""
    if _OBSERVES in node.meta:
        return "observed", ""
    if KERNEL_KEY in node.meta:
        return "integer", str(node.meta[KERNEL_KEY])
    if view.read(node).op is ops.clamp_codes or HALF_KEY in node.meta:
        return "boundary", ""
    name = getattr(node.target, "__name__", str(node.target))
    return ("boundary", "") if name in _BOUNDARY else ("float", "")


def _reason(node: Node, facts: _Facts) -> str:
    for name in (node.name, *(origin.name for origin in origins(node))):
        if name in facts.float:
            return facts.float[name]
    instance = facts.instance(node)
    if instance is not None and facts.lowered:
        # A pattern is lowered as a whole, and its last op says why it was not.
        said = facts.unlowered.get(instance["anchor"])
        return "; ".join(said) if said else "the target left it: what reads it, or what it reads, is in float"
    if instance is not None:
        return "to be quantized: a reference or prepared graph computes in float"
    return "it computes no float tensor (a size, an index)"


def _notes(node: Node, facts: _Facts) -> tuple[str, ...]:
    instance = facts.instance(node)
    names = [node.name, *((instance["anchor"], instance["nodes"][0]) if instance is not None else ())]
    said = dict.fromkeys(problem for name in names for problem in facts.problems.get(name, ()))
    return (f"its statistics are doubtful: {', '.join(said)}",) if said else ()


def _overflow(view: GraphView, node: Node) -> tuple[Overflow, tuple[str, ...]]:
    """Whether a kernel's 16-bit sums could overflow, and the note that says so."""
    risk = risks(view, node)
    if risk is None or risk[1] <= 1:
        return "", ()
    where = "on every CPU" if node.meta.get(SUMS_KEY) == "pairs" else "on CPUs without VNNI"
    inside, beyond = risk
    if inside > 1:
        return "inside", (f"8-bit sums can overflow 16 bits {where} ({inside:.2f} of what fits)",)
    said = f"inputs beyond the observed range could overflow 16 bits {where} ({beyond:.2f} of what fits)"
    return "beyond", (said,)


def weight_of(view: GraphView, node: Node) -> torch.Tensor | None:
    """The codes of the weight an integer kernel multiplies with, output channels first; or None."""
    owner, weight = None, None
    if node.op == "call_module":
        owner = view.module(str(node.target))
        weight = getattr(owner, "weight", None)
        weight = weight() if callable(weight) else None
    else:
        specs: Any = getattr(view.gm, "rebuilt", {})
        for source in node.all_input_nodes:
            owner = specs.get(str(source.target)) if source.op == "get_attr" else None
            if owner is not None and hasattr(owner, "weight"):
                weight = owner.weight
                break
    if weight is None or weight.dim() < 2 or not (weight.is_quantized or weight.dtype is torch.int8):
        return None
    codes: torch.Tensor = weight.int_repr() if weight.is_quantized else weight
    return codes.movedim(1, 0) if getattr(owner, "transposed", False) else codes


def risks(view: GraphView, node: Node) -> tuple[float, float] | None:
    """(within the observed range, beyond it): the worst sum of two products as a share of what 16 bits hold.

    None for kernels that have no weight or add products exactly on every CPU.
    """
    weight = weight_of(view, node) if KERNEL_KEY in node.meta and node.meta.get(SUMS_KEY) != "exact" else None
    if weight is None:
        return None
    data = next((source for source in node.all_input_nodes if source.op != "get_attr"), None)
    reach = reach_of(view, data)
    return overflow_risk(weight, 0, reach.inside), overflow_risk(weight, 0, reach.ever)
