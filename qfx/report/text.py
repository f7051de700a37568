"""Reports as text: what rich prints, and the same without rich."""

from __future__ import annotations

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from qfx.report.entries import Entry

_WIDEST = 160
_NARROW = 100  # columns below which the op, which kernels and reasons name too, is left out
_HIDDEN = frozenset({"input", "output", "observed"})
_STYLE = {"integer": "green", "boundary": "dim", "float": "yellow"}
NO_TENSOR = "no float tensor"
_DETAIL = re.compile(r"(.*) \((.*)\)$", re.DOTALL)


def table(entries: Iterable[Entry], width: int) -> RenderableType:
    """Entries as a table of `width` columns, a line a node where it fits; remarks that many share stand below it.

    Names, reasons and remarks are text, never markup: ``[conv, relu]`` in one would be taken for a style.
    """
    remarks: dict[str, int] = {}
    rows = Table(box=None, pad_edge=False)
    rows.add_column("node", no_wrap=True, overflow="ellipsis", max_width=max(16, width // 3))
    if width >= _NARROW:
        rows.add_column("op", no_wrap=True, overflow="ellipsis", max_width=28)
    rows.add_column("what became of it", min_width=24, overflow="fold")
    rows.add_column("line", no_wrap=True, overflow="ellipsis", min_width=8)
    for entry in entries:
        if entry.status in _HIDDEN:
            continue
        names = [entry.node, entry.op] if width >= _NARROW else [entry.node]
        said = Text(_verdict(entry), style=_STYLE[entry.status])
        for note in entry.notes:
            said.append(_reference(note, remarks))
        # The folder of a file says little and costs much room.
        rows.add_row(*map(Text, names), said, Text(re.split(r"[/\\]", entry.line)[-1]))
    below = [Text(f"[{number}] {remark}") for remark, number in remarks.items()]
    return Group(rows, Text(), *below) if below else rows


def _verdict(entry: Entry) -> str:
    if entry.status == "integer":
        return f"{entry.kernel} by {entry.rule or 'conversion'}"
    if entry.status == "float":
        first, *rest = entry.reasons
        shown = first if NO_TENSOR in first else f"float: {first}"
        return "\n".join((shown, *rest))
    return entry.status


def _reference(note: str, remarks: dict[str, int]) -> str:
    """`` [1] 1.97 of what fits``: the number of a remark, and what of it is this node's own."""
    found = _DETAIL.match(note)
    remark, detail = (found[1], f" {found[2]}") if found else (note, "")
    return f" [{remarks.setdefault(remark, len(remarks) + 1)}]{detail}"


def printed(renderable: Any) -> str:
    """What rich shows, as plain text as wide as `terminal_width` says."""
    console = Console(file=io.StringIO(), width=terminal_width(), color_system=None)
    console.print(renderable)
    out: Any = console.file
    return "\n".join(line.rstrip() for line in str(out.getvalue()).rstrip().splitlines())


def terminal_width() -> int:
    """Columns of the terminal, at most 160; 160 where output goes elsewhere, so that a log is the same anywhere."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns) if terminal else _WIDEST


def counted(counts: Mapping[str, int]) -> list[str]:
    """A line a count, largest first; long ones go on under their own beginning."""
    lines = (f"{count:6d}  {what}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))
    return [textwrap.fill(line, terminal_width(), subsequent_indent=" " * 8) for line in lines]


def many(count: int, what: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} bytes"
