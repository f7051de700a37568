"""The wheel holds exactly the sources, under the names they are imported by."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"qfx": "qfx", "passes": "qfx/passes", "patterns": "qfx/patterns"}
DATA = {".html", ".typed"}


def sources() -> list[Path]:
    """The files of the tree a wheel is made from, relative to it; without caches and build products."""
    kept = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
    found = [Path(name) for name in kept]
    for folder in PACKAGES:
        found += [
            path.relative_to(ROOT)
            for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in {".py", *DATA} and "__pycache__" not in path.parts
        ]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a clean copy: build/lib next to the sources would keep modules that were deleted long ago."""
    copy = tmp_path_factory.mktemp("clean")
    for path in sources():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        Path(PACKAGES[path.parts[0]], *path.parts[1:]).as_posix() for path in sources() if path.parts[0] in PACKAGES
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_the_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "qfx/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_built_package_imports_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import qfx, qfx.passes, qfx.patterns\n"
        "print(qfx.__file__, qfx.passes.__file__, qfx.patterns.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [tmp_path / "qfx" / folder / "__init__.py" for folder in ("", "passes", "patterns")]
    assert [Path(line) for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize("folder", ["passes", "patterns"])
def test_the_short_name_is_refused_from_the_root(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode != 0
    assert f"ImportError: import qfx.{folder}, never {folder}" in done.stderr
