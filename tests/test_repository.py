"""Rules about the repository itself: links lead somewhere, tests mirror sources, nothing names a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".in"}

# Tests that mirror no single source, and why.
NO_SOURCE = {
    "against_torch_ao": "compares with the original",
    "conftest": "settings every test shares",
    "documentation": "runs the examples in docstrings and README",
    "layers": "a rule about all sources",
    "namespace": "asks every public name for its test",
    "packaging": "a rule about all sources",
    "repository": "a rule about all sources",
}
# Where a test of a given name may find its source.
SOURCES = ("", "qfx", "benchmarks")

# Spelled in two pieces, so that this file does not find itself.
MACHINE = re.compile("|".join("/" + folder + "/" for folder in ("work", "root", "home", "opt", "Users")))
LINK = re.compile(r"\]\((?!\w+://|#)([^)#\s]+)")


def texts() -> Iterator[Path]:
    """Our text files, without what tools leave behind."""
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and (path.suffix in TEXT or path.name in ("Makefile", "LICENSE")):
            yield path
    for folder in (".ci", "benchmarks", "docs", "examples", "passes", "patterns", "qfx", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and (path.suffix in TEXT or folder == ".ci"):
                yield path


def mirrors_nothing(tests: Path, root: Path) -> list[str]:
    found = []
    for path in sorted(tests.iterdir()):
        if not (path.is_dir() or path.suffix == ".py") or path.name == "__pycache__":
            continue
        name = path.stem.removeprefix("test_")
        places = [root / source / name for source in SOURCES]
        if name not in NO_SOURCE and not any(place.is_dir() or place.with_suffix(".py").is_file() for place in places):
            found.append(f"{path.name}: no source called {name}; rename it, or add it to NO_SOURCE with the reason")
    return found


def broken_links(page: Path) -> list[str]:
    return [
        f"{page.name}: {link}" for link in LINK.findall(page.read_text()) if not (page.parent / link).resolve().exists()
    ]


def test_tests_mirror_sources() -> None:
    assert mirrors_nothing(ROOT / "tests", ROOT) == []


def test_a_test_without_a_source_is_found(tmp_path: Path) -> None:
    for name in ("qfx/capture.py", "passes/rule.py", "tests/test_capture.py", "tests/test_gone.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("tests/passes", "tests/nowhere"):
        (tmp_path / name).mkdir()
    found = mirrors_nothing(tmp_path / "tests", tmp_path)
    assert [problem.partition(":")[0] for problem in found] == ["nowhere", "test_gone.py"]


@pytest.mark.parametrize("page", sorted(p for p in texts() if p.suffix == ".md"), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[here](page.md#top) [there](gone.md) [far](https://example.org/gone.md) [up](#top)")
    assert broken_links(page) == ["page.md: gone.md"]


def test_nothing_names_a_machine() -> None:
    found = [path.relative_to(ROOT).as_posix() for path in texts() if MACHINE.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_scripts_are_short(folder: str) -> None:
    """The sources and tests are bounded in test_layers."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}
