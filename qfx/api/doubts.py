"""What conversion finds out and cannot keep to itself: listed in the plan, a warning, or an error if strict."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import GraphModule, Node

from qfx import ops
from qfx.errors import DowngradeError
from qfx.frames import warn
from qfx.graph.kept import DraftGraphModule
from qfx.graph.provenance import describe, origins
from qfx.passes.convert import Converted
from qfx.passes.pipeline import Context
from qfx.passes.rewriter import KERNEL_KEY

_SHOWN = 5


def listed(lines: Iterable[str]) -> str:
    """Up to five of some lines, and how many more there are."""
    said = list(lines)
    more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return "; ".join(said[:_SHOWN]) + more


def check_downgrades(gm: DraftGraphModule) -> None:
    """Raise if `prepare_fx` could not honour the mapping somewhere: it listed it, or warned.

    Raises:
        DowngradeError: it could not.
    """
    names = gm.plan.get("downgrades", ())
    if names:
        lines = [f"{_where(gm, name)}: {gm.plan['float'][name]}" for name in names]
        raise DowngradeError(
            f"prepare_fx could not quantize {len(lines)} operators as the mapping says: {listed(lines)}"
        )


def check_lowered(gm: DraftGraphModule, context: Context, strict: bool) -> None:
    """Put into the plan which kernel took what, and what none took.

    Raises:
        DowngradeError: `strict`, and some operator that was to be integer is not.
    """
    kernels = {node.name: node.meta[KERNEL_KEY] for node in gm.graph.nodes if KERNEL_KEY in node.meta}
    left = _unlowered(gm, context)
    gm.plan = {**gm.plan, "kernels": kernels, "unlowered": left}
    if strict and left:
        lines = [f"{_where(gm, name)}: {', '.join(reasons)}" for name, reasons in left.items()]
        raise DowngradeError(f"no integer kernel took {len(left)} places: {listed(lines)}")


def _unlowered(gm: DraftGraphModule, context: Context) -> dict[str, list[str]]:
    """Calls that were to be integer and are not, by name, with what the target's rules said of them."""
    misses: dict[str, list[str]] = {}
    for log in context.logs:
        for entry in log.rules.values():
            for anchor, why in entry.misses.items():
                misses.setdefault(anchor, []).append(why)
    left: dict[str, list[str]] = {}

    def leave(node: Node, rounded: str) -> None:
        kind = context.view.read(node).op.name
        left[node.name] = misses.get(rounded) or [f"the target has no integer kernel for {kind}"]

    for reading in context.view.find(ops.quantize):
        node, source = reading.node, reading.node.args[0]
        if isinstance(source, Node) and source.op.startswith("call") and source.name not in gm.plan["float"]:
            leave(source, node.name)
    # An instance whose result nobody rounds has no quantize to tell.
    integer = {origin.name for node in gm.graph.nodes if KERNEL_KEY in node.meta for origin in origins(node)}
    standing = {node.name: node for node in gm.graph.nodes if node.op.startswith("call")}
    for instance in gm.plan["instances"].values():
        last = standing.get(instance["anchor"])
        if last is None or last.name in gm.plan["float"] or last.name in left:
            continue
        if integer.isdisjoint(instance["origins"]):
            leave(last, last.name)
    return left


def _where(gm: GraphModule, name: str) -> str:
    return next((describe(node) for node in gm.graph.nodes if node.name == name), name)


def check_dropped(gm: GraphModule, dropped: dict[str, str], strict: bool) -> None:
    """Warn of observers that were dropped, and why.

    Raises:
        DowngradeError: `strict`.
    """
    reasons: dict[str, list[str]] = {}
    for name, why in dropped.items():
        reasons.setdefault(why, []).append(_where(gm, name))
    if not reasons:
        return
    lines = "; ".join(f"{listed(names)}: {why}" for why, names in reasons.items())
    message = f"{len(dropped)} values that were to be quantized are not: {lines}"
    if strict:
        raise DowngradeError(f"{message}.")
    warn(f"{message}.")


def check_doubts(converted: Converted, strict: bool) -> None:
    """Warn of doubtful statistics: of values calibration showed, and of weights and other constants.

    Raises:
        DowngradeError: `strict`.
    """
    said, advice = [], []
    for problems, words, way_out in (
        (converted.constants, "constants of {} operators are doubtful", "Correct these constants of the model"),
        (
            converted.problems,
            "statistics of {} values are doubtful",
            "Run the prepared model on representative, finite data",
        ),
    ):
        if problems:
            lines = [f"{name}: {', '.join(each)}" for name, each in problems.items()]
            said.append(f"{words.format(len(problems))}: {listed(lines)}")
            advice.append(f"{way_out} before converting.")
    if not said:
        return
    message = ". ".join(said)
    if strict:
        raise DowngradeError(f"{message}. {' '.join(advice)}")
    warn(f"{message}. Their scales may be meaningless.")
