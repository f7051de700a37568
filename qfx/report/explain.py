"""``explain`` and ``summary``: what was quantized, what was not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import nn

from qfx.graph.kept import state_bytes
from qfx.report.entries import Entry, entries
from qfx.report.text import NO_TENSOR, counted, many, printed, size, table


@dataclass(frozen=True)
class Explanation:
    """What became of every node; prints as a table, iterates as `Entry`s.

    Attributes:
        entries: in graph order, constants left out.
    """

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> Entry:
        """The entry of a node, by its name in the graph or in the model as it was captured.

        Raises:
            KeyError: neither is there.
        """
        for entry in self.entries:
            if name == entry.node:
                return entry
        for entry in self.entries:
            if name in entry.stands_for:
                return entry
        raise KeyError(f"no node {name!r}; there are {', '.join(entry.node for entry in self.entries[:8])} ...")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data by node name."""
        return {entry.node: entry.to_dict() for entry in self.entries}

    def float_nodes(self) -> tuple[Entry, ...]:
        """The entries that stayed float."""
        return tuple(entry for entry in self.entries if entry.status == "float")

    def __str__(self) -> str:
        return printed(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, for ``rich``, as wide as it is asked for."""
        yield table(self.entries, options.max_width)


@dataclass(frozen=True)
class Summary:
    """Counts of one graph module; prints as a few lines.

    Attributes:
        nodes: how many calls there are, by status.
        kernels: how many nodes run on each kernel.
        reasons: how many nodes stayed float for each reason.
        coverage_nodes: integer calls as a share of integer and float ones; clamps that conversion adds are neither.
        coverage_macs: multiply-accumulates done by integer kernels, as a share of those that are counted; None if none
            are. They are counted per sample, see `Entry`; the share is the same for a batch.
        unknown_macs: nodes that multiply, or may, and are not counted: nobody saw their shape or knows their code.
        bytes_before: of the float model's state dict.
        bytes_after: of this one's.
        risky: integer kernels whose 16-bit sums could overflow, on every CPU or on those without VNNI (`explain` says).
        risky_inside: those of them for which inputs inside the observed range are enough.
        uncounted: `unknown_macs` by op.
    """

    nodes: dict[str, int]
    kernels: dict[str, int]
    reasons: dict[str, int]
    coverage_nodes: float
    coverage_macs: float | None
    unknown_macs: int
    bytes_before: int
    bytes_after: int
    risky: int
    risky_inside: int = 0
    uncounted: dict[str, int] = field(default_factory=dict)

    def __rich__(self) -> Text:
        """The same lines, for ``rich``; never markup."""
        return Text(str(self))

    def __str__(self) -> str:
        nodes = many(self.nodes.get("integer", 0), "node")
        lines = [
            f"integer: {nodes}, {self.coverage_nodes:.1%} of computing nodes, {self._share_of_macs()}",
            *counted(self.kernels),
        ]
        if self.reasons:
            lines += [f"float: {many(sum(self.reasons.values()), 'node')}", *counted(self.reasons)]
        lines.append(f"between them: {many(self.nodes.get('boundary', 0), 'node')} that quantize or dequantize")
        lines.append(f"size: {size(self.bytes_before)} before, {size(self.bytes_after)} after")
        if self.unknown_macs:
            lines.append(f"not counted: {many(self.unknown_macs, 'node')}, as nothing tells how much they multiply")
            lines += counted(self.uncounted)
        if self.risky_inside:
            inside = many(self.risky_inside, "kernel")
            lines.append(f"{inside} can overflow 16 bits inside the observed range; explain says where")
        if self.risky > self.risky_inside:
            beyond = many(self.risky - self.risky_inside, "kernel")
            lines.append(f"{beyond} could overflow 16 bits, for inputs beyond the observed range")
        return "\n".join(lines)

    def _share_of_macs(self) -> str:
        if self.coverage_macs is None:
            return f"{'unknown' if self.unknown_macs else 'no'} multiply-accumulates"
        of = "the multiply-accumulates that are counted" if self.unknown_macs else "multiply-accumulates"
        return f"{self.coverage_macs:.1%} of {of}"


def explain(gm: nn.Module) -> Explanation:
    """Say for every node what became of it: the rule and kernel, or the reason it stayed float, with your source line.

    Args:
        gm: what `prepare_fx`, `convert_fx` or `convert_to_reference_fx` returned.

    Raises:
        ConfigError: another module.

    Example:
        >>> import torch, qfx
        >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU()).eval(), torch.randn(2, 4)
        >>> prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
        >>> _ = prepared(x)
        >>> qfx.explain(qfx.convert_fx(prepared))["_1"].reasons
        ('no pattern of the backend has gelu as its last op',)
    """
    return Explanation(tuple(entries(gm)))


def summary(gm: nn.Module) -> Summary:
    """Count what `explain` lists: kernels, coverage, size before and after.

    Raises:
        ConfigError: `gm` is none of the graph modules qfx returns.
    """
    found = entries(gm)
    nodes: Counter[str] = Counter(entry.status for entry in found)
    # What conversion put in by itself is nothing the model computes.
    computed = sum(1 for e in found if e.status == "integer" and e.rule)
    counted = computed + sum(1 for e in found if e.status == "float" and NO_TENSOR not in e.reasons[0])
    integer = sum(e.macs or 0 for e in found if e.status == "integer")
    total = sum(e.macs or 0 for e in found if e.status in ("integer", "float"))
    plan: Any = getattr(gm, "plan", {})
    return Summary(
        nodes=dict(nodes),
        kernels=dict(Counter(entry.kernel for entry in found if entry.status == "integer")),
        reasons=dict(Counter(e.reasons[0] for e in found if e.status == "float" and NO_TENSOR not in e.reasons[0])),
        coverage_nodes=computed / max(counted, 1),
        coverage_macs=integer / total if total else None,
        unknown_macs=sum(1 for e in found if e.macs is None),
        uncounted=dict(Counter(e.op for e in found if e.macs is None)),
        bytes_before=plan.get("bytes_before", 0),
        bytes_after=state_bytes(gm),
        risky=sum(1 for entry in found if entry.overflow),
        risky_inside=sum(1 for entry in found if entry.overflow == "inside"),
    )
