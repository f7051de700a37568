"""Reports print whole at any width: reasons are text and never markup, remarks that nodes share stand once."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import qfx
from qfx.report import Entry, Explanation, Summary
from qfx.report.text import counted, many, size, terminal_width

MISS = "matched 3 of 3 nodes [quantize_2, clamp, dequantize_4], then: [bold]clamp[/bold] is also used by :x: [/]"


def on_console(shown: Any, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return out.getvalue()


def squeezed(text: str) -> str:
    """Without what wrapping may change."""
    return "".join(text.split())


def explained(*reasons: str, line: str = "") -> Explanation:
    return Explanation((Entry("node", "op", "float", reasons=reasons, line=line),))


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes standard output a terminal so wide."""

    def set_to(width: int) -> None:
        monkeypatch.setattr("sys.stdout", Terminal())  # here, as pytest puts its own there before each test
        monkeypatch.setenv("COLUMNS", str(width))

    return set_to


def summed(**more: Any) -> Summary:
    given = {"nodes": {}, "kernels": {}, "reasons": {}, "coverage_nodes": 1.0, "coverage_macs": 1.0, "unknown_macs": 0}
    return Summary(**{**given, "bytes_before": 0, "bytes_after": 0, "risky": 0, **more})


@pytest.mark.parametrize("width", [40, 80, 160])
def test_reasons_in_brackets_are_printed_whole(width: int, columns: Callable[[int], None]) -> None:
    columns(width)
    summary = summed(reasons={MISS: 1}, kernels={"[my] kernel": 2}, uncounted={"[op]": 1}, unknown_macs=1)
    for text in (str(summary), on_console(summary, width)):
        assert squeezed(MISS) in squeezed(text)
        assert "2  [my] kernel" in text
        assert "1  [op]" in text
    kernel = Explanation((Entry("[n]", "[o]", "integer", "[kernel]", "[rule]"),))
    for shown, expected in ((explained(MISS), MISS), (kernel, "[kernel] by [rule]")):
        for text in (str(shown), on_console(shown, width)):
            assert squeezed(expected) in squeezed(text)


@given(st.text(alphabet="[]/:ab \\\"'=", min_size=1).filter(str.strip))
@settings(max_examples=50, deadline=None)
def test_no_reason_is_markup(reason: str) -> None:
    assert squeezed(reason) in squeezed(on_console(explained(reason), 4 * 160))
    assert squeezed(reason) in squeezed(on_console(summed(reasons={reason: 1}), 4 * 160))


def test_a_refusal_that_names_nodes_survives_the_whole_way() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Hardswish(), nn.Hardswish()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.nn.functional.pad(self.a(x), (1, 1), mode="circular"))

    x = torch.randn(2, 3, 8)
    prepared = qfx.prepare_fx(Shared().eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    int8 = qfx.convert_fx(prepared)
    (pad,) = qfx.explain(int8).float_nodes()
    assert "matched" in pad.reasons[0]
    assert "[" in pad.reasons[0]
    for shown in (qfx.explain(int8), qfx.summary(int8)):
        assert pad.reasons[0] in on_console(shown, 4 * 160)


def test_the_terminal_decides_how_wide(columns: Callable[[int], None]) -> None:
    shown = explained(MISS, "it is " + "very " * 60 + "long", line="/a/b/model.py:3")
    for width, has_op in ((60, False), (80, False), (120, True), (160, True)):
        columns(width)
        lines = str(shown).splitlines()
        assert width / 2 < max(map(len, lines)) <= width
        assert lines[0].split()[:2] == (["node", "op"] if has_op else ["node", "what"])
        assert lines[0].split()[-1] == "line"
        assert lines[1].endswith("model.py:3")
        assert lines == [line.rstrip() for line in lines]
    columns(400)
    assert terminal_width() == 160


@pytest.mark.parametrize("stdout", [io.StringIO(), None], ids=["a file", "nothing"])
def test_a_log_is_the_same_anywhere(stdout: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("COLUMNS", "30")
    assert terminal_width() == 160
    assert len(str(explained(MISS)).splitlines()) == 2


def test_remarks_stand_once_below_the_table() -> None:
    def of(name: str, *notes: str) -> Entry:
        return Entry(name, "conv2d", "integer", "quantized.conv2d", "lower", notes=notes)

    text = str(
        Explanation((of("a", "sums overflow (1.50 of what fits)"), of("b", "sums overflow (1.25 of what fits)", "x")))
    )
    table, _, below = text.partition("\n\n")
    assert "quantized.conv2d by lower [1] 1.50 of what fits" in table
    assert "quantized.conv2d by lower [1] 1.25 of what fits [2]" in table
    assert below.splitlines() == ["[1] sums overflow", "[2] x"]
    assert "\n\n" not in str(Explanation((of("a"),)))


def test_what_has_no_verdict_has_no_row() -> None:
    statuses = ("input", "observed", "boundary", "integer", "float", "output")
    shown = Explanation(tuple(Entry(status, "op", status, "k", "r", reasons=("why",)) for status in statuses))
    assert [line.split()[0] for line in str(shown).splitlines()[1:]] == ["boundary", "integer", "float"]
    assert "float: why" in str(shown)
    assert "float:" not in str(explained("it computes no float tensor (a size, an index)"))


def test_counts_are_sorted_and_hang(columns: Callable[[int], None]) -> None:
    columns(30)
    assert counted({"few": 1, "many " + "words " * 6: 12}) == [
        "    12  many words words words\n        words words words",
        "     1  few",
    ]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.00 kB"), (18_780_000, "18.78 MB"), (2_500_000_000, "2.50 GB")],
)
def test_sizes_have_a_unit_that_fits(count: int, shown: str) -> None:
    assert size(count) == shown


def test_one_is_not_plural() -> None:
    assert [many(n, "node") for n in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    text = str(summed(nodes={"integer": 1, "boundary": 2, "float": 9}, reasons={"why": 1}))
    assert "integer: 1 node, 100.0% of computing nodes, 100.0% of multiply-accumulates" in text
    assert "float: 1 node\n" in text  # the other eight compute no float tensor
    assert "between them: 2 nodes that quantize or dequantize" in text
    assert "size: 0 bytes before, 0 bytes after" in text
    assert "not counted" not in text
