"""``python -m benchmarks [name ...]``: every module here that defines ``rows()``; exits 1 if a bound does not hold."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

from benchmarks.harness import Row, show


def main() -> int:
    wanted = sys.argv[1:]
    rows: list[Row] = []
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem.startswith("_") or (wanted and path.stem not in wanted):
            continue
        module = importlib.import_module(f"benchmarks.{path.stem}")
        if hasattr(module, "rows"):
            rows += module.rows()
    return 0 if show(rows) else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own deprecations would hide the table
    sys.exit(main())
