"""``explain`` and ``summary``: what was quantized, what was not, and why."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from qfx.graph.kept import state_bytes
from qfx.report.entries import Entry, entries

_NO_TENSOR = "no float tensor"


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
        return printed(self.__rich__())

    def __rich__(self) -> Table:
        """The table, for ``rich``."""
        table = Table("node", "op", "what became of it", "line", box=None, pad_edge=False)
        for entry in self.entries:
            if entry.status in ("input", "output", "observed"):
                continue
            said = [f"{entry.kernel} by {entry.rule or 'conversion'}" if entry.status == "integer" else entry.status]
            said += [*entry.reasons, *entry.notes]
            table.add_row(entry.node, entry.op, "; ".join(said), entry.line.rpartition("/")[2])
        return table


@dataclass(frozen=True)
class Summary:
    """Counts of one graph module; prints as a few lines.

    Attributes:
        nodes: how many calls there are, by status.
        kernels: how many nodes run on each kernel.
        reasons: how many nodes stayed float for each reason.
        coverage_nodes: integer calls as a share of integer and float ones.
        coverage_macs: multiply-accumulates done by integer kernels, of those whose shapes are known; None if none are.
        unknown_macs: weighted nodes whose shape nobody saw.
        bytes_before: of the float model's state dict.
        bytes_after: of this one's.
        risky: integer kernels whose 16-bit sums could overflow without VNNI, for inputs beyond the observed range.
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

    def __rich__(self) -> str:
        """The same lines, for ``rich``."""
        return str(self)

    def __str__(self) -> str:
        macs = "no shapes known" if self.coverage_macs is None else f"{self.coverage_macs:.1%} of multiply-accumulates"
        lines = [
            f"integer: {self.nodes.get('integer', 0)} nodes, {self.coverage_nodes:.1%} of computing nodes, {macs}",
            f"size: {self.bytes_before / 1e6:.2f} MB before, {self.bytes_after / 1e6:.2f} MB after",
            *(f"  {count:4d}  {kernel}" for kernel, count in sorted(self.kernels.items(), key=lambda kv: -kv[1])),
        ]
        if self.reasons:
            lines.append(f"float: {self.nodes.get('float', 0)} nodes")
            lines += [f"  {count:4d}  {why}" for why, count in sorted(self.reasons.items(), key=lambda kv: -kv[1])]
        if self.unknown_macs:
            lines.append(f"{self.unknown_macs} weighted nodes are not counted: no observer saw their shape")
        if self.risky:
            lines.append(
                f"{self.risky} kernels could overflow 16 bits without VNNI, for inputs beyond the observed range"
            )
        return "\n".join(lines)


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
    counted = nodes["integer"] + sum(1 for e in found if e.status == "float" and _NO_TENSOR not in e.reasons[0])
    integer = sum(e.macs or 0 for e in found if e.status == "integer")
    total = sum(e.macs or 0 for e in found if e.status in ("integer", "float"))
    plan: Any = getattr(gm, "plan", {})
    return Summary(
        nodes=dict(nodes),
        kernels=dict(Counter(entry.kernel for entry in found if entry.status == "integer")),
        reasons=dict(Counter(e.reasons[0] for e in found if e.status == "float" and _NO_TENSOR not in e.reasons[0])),
        coverage_nodes=nodes["integer"] / max(counted, 1),
        coverage_macs=integer / total if total else None,
        unknown_macs=sum(1 for e in found if e.status == "float" and e.macs is None and _is_weighted(e)),
        bytes_before=plan.get("bytes_before", 0),
        bytes_after=state_bytes(gm),
        risky=sum(1 for entry in found if any("could overflow" in note for note in entry.notes)),
    )


def _is_weighted(entry: Entry) -> bool:
    return entry.op.startswith(("conv", "linear", "Conv", "Linear"))


def printed(table: Table) -> str:
    """A rich table as plain text of up to 160 columns."""
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(table)
    out: Any = console.file
    return str(out.getvalue()).rstrip()
