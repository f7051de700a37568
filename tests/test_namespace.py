"""The names people know are here, and each is exercised by the test that `namespace.toml` tells."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qfx

ROOT = Path(__file__).parents[1]
TABLES = tomllib.loads((ROOT / "tests" / "namespace.toml").read_text())
NAMES: dict[str, str] = TABLES["names"]
PENDING: dict[str, str] = TABLES["pending"]
DIFFERENCES: dict[str, str] = TABLES["differences"]


@cache
def sources(path: Path) -> dict[str, str]:
    """The text of every test of a file, decorators and all; under "" the whole file."""
    text = path.read_text()
    found = {"": text}
    for each in ast.parse(text).body:
        if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
            first = min([each.lineno, *(d.lineno for d in each.decorator_list)])
            found[each.name] = "\n".join(text.splitlines()[first - 1 : each.end_lineno])
    return found


def problem(name: str, test: str) -> str | None:
    """Why a node id is no test of a name."""
    path, _, function = test.partition("::")
    if not path.startswith("tests/") or not (ROOT / path).is_file():
        return f"{path} is no file of the tests"
    if function not in sources(ROOT / path) or not function:
        return f"{path} has no {function or 'function'}"
    mentioned = re.search(rf"\b{name}\b", sources(ROOT / path)[""])
    return None if mentioned else f"{path} does not speak of {name}"


def test_every_name_is_here_and_imported_by_star() -> None:
    given: dict[str, Any] = {}
    exec("from qfx import *", given)
    assert [name for name in NAMES if not hasattr(qfx, name) or name not in given] == []
    assert [name for name, value in given.items() if isinstance(value, ModuleType)] == []


def test_a_star_rebinds_nothing_of_the_user() -> None:
    kept = dict.fromkeys(("nn", "ops", "torch", "annotations", "config", "observers"), "mine")
    given: dict[str, Any] = dict(kept)
    exec("from qfx import *", given)
    assert {name: given[name] for name in kept} == kept


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_behaviour_test(name: str) -> None:
    assert problem(name, NAMES[name]) is None


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("tests/test_nowhere.py::test_x", "is no file"),
        ("tests/test_namespace.py::test_x", "has no test_x"),
        ("tests/test_namespace.py", "has no function"),
        ("tests/test_layers.py::test_imports_go_down", "has no|does not speak"),
    ],
)
def test_what_is_no_behaviour_test_is_told(test: str, why: str) -> None:
    assert re.search(why, problem("QConfigMapping", test) or "")


def test_every_public_name_of_the_original_is_listed() -> None:
    """Those of the issue that are pending are missing still; once they exist they belong to `names`."""
    assert len(NAMES) > 200
    assert [name for name in PENDING if hasattr(qfx, name)] == []


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isroutine(getattr(qfx, n, None))])
def test_functions_are_documented_and_typed(name: str) -> None:
    function = getattr(qfx, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty] == []


def test_differences_have_reasons() -> None:
    assert [name for name, why in DIFFERENCES.items() if len(why) < 20 or name not in NAMES] == []


def test_types_of_annotations() -> None:
    """Names that only annotate: QConfigAny, NodePattern, ObserverOrFakeQuantize."""
    assert qfx.QConfigAny == qfx.QConfig | None
    assert qfx.NodePattern is Any
    assert issubclass(qfx.MinMaxObserver, qfx.ObserverBase)
    assert isinstance(qfx.FakeQuantize(), qfx.ObserverOrFakeQuantize)
    assert isinstance(qfx.MinMaxObserver(), qfx.ObserverOrFakeQuantize)


def test_every_name_is_in_the_page_for_those_who_come_from_the_original() -> None:
    page = (ROOT / "docs" / "migrating.md").read_text()
    assert [name for name in NAMES if f"| `{name}` | `qfx.{name}` |" not in page] == []
