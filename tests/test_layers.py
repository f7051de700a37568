"""Imports go down only, and nothing of torch.ao is imported where the design forbids it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"qfx": "qfx", "passes": "qfx.passes", "patterns": "qfx.patterns"}

# Layer of each part of qfx; a part may import parts of a lower layer, itself, and what BESIDE allows.
LAYERS = {
    "errors": 0,
    "frames": 0,
    "reject": 0,
    "quick": 0,
    "layout": 0,
    "ops": 1,
    "spellings": 1,
    "dtypes": 1,
    "qparams": 1,
    "graph": 2,
    "tracing": 2,
    "patterns": 3,
    "observers": 3,
    "fake_quantize": 3,
    "specs": 3,
    "config": 3,
    "kernels": 3,
    "nn": 3,
    "utilities": 3,
    "passes": 4,
    "capture": 5,
    "api": 5,
    "eager": 5,
    "exported": 5,
    "report": 5,
    "jit": 5,
    "tracer": 5,
    "compat": 6,
    "testing": 5,
}
BESIDE = {
    ("spellings", "ops"),
    ("qparams", "dtypes"),
    ("nn", "observers"),
    ("nn", "kernels"),
    ("nn", "config"),
    ("nn", "fake_quantize"),
    ("config", "observers"),
    ("config", "fake_quantize"),
    ("fake_quantize", "observers"),
    ("config", "nn"),
    ("utilities", "config"),
    ("utilities", "observers"),
    ("api", "capture"),
    ("api", "report"),
    ("report", "capture"),
}
QUANTIZATION = {"observers", "fake_quantize", "specs", "config", "kernels", "nn", "dtypes", "qparams"}
FORBIDDEN = ("torch.ao", "torch.quantization")
AO_ALLOWED = ("tests/against_torch_ao/", "benchmarks/")


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def part_of(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).parts
    if folder in ("passes", "patterns"):
        return folder
    return rest[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def upward(path: Path) -> list[str]:
    part = part_of(path)
    if part == "__init__":
        return []
    found = []
    for line, name in imported(ast.parse(path.read_text())):
        pieces = name.split(".")
        if pieces[0] != "qfx" or len(pieces) < 2 or pieces[1] not in LAYERS:
            continue
        other = pieces[1]
        allowed = other == part or LAYERS[other] < LAYERS[part] or (part, other) in BESIDE
        if part == "patterns" and other in QUANTIZATION:
            allowed = False
        if not allowed:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {name}: {part} may not know {other}")
    return found


def test_every_part_has_a_layer() -> None:
    parts = {part_of(p) for p in sources("qfx", "passes", "patterns")} - {"__init__"}
    assert parts - set(LAYERS) == set()


def test_imports_go_down() -> None:
    assert [problem for path in sources("qfx", "passes", "patterns") for problem in upward(path)] == []


def test_an_upward_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "patterns" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("from qfx.observers import MinMaxObserver\nimport qfx.passes.rule\nfrom qfx import graph\n")
    found = upward(bad)
    assert any("patterns may not know observers" in problem for problem in found)
    assert any("patterns may not know passes" in problem for problem in found)
    assert not any("graph" in problem for problem in found)


def test_no_torch_ao() -> None:
    found = []
    for path in sources("qfx", "passes", "patterns", "tests", "examples", "benchmarks"):
        relative = path.relative_to(ROOT).as_posix()
        if relative.startswith(AO_ALLOWED):
            continue
        for line, name in imported(ast.parse(path.read_text())):
            if any(name == bad or name.startswith(f"{bad}.") for bad in FORBIDDEN):
                found.append(f"{relative}:{line} imports {name}")
    assert found == []


@pytest.mark.parametrize("folder", ["passes", "patterns"])
def test_the_short_name_cannot_be_imported(folder: str) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location(folder, ROOT / folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=f"import qfx.{folder}"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_files_are_short() -> None:
    """Past 400 lines a file has more than one responsibility."""
    long = [
        f"{p.relative_to(ROOT)}: {n} lines"
        for p in sources("qfx", "passes", "patterns", "tests")
        if (n := len(p.read_text().splitlines())) > 400
    ]
    assert long == []
