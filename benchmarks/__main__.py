"""``python -m benchmarks [name ...]``: every module here that defines ``rows()``; exits 1 if a bound does not hold."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.harness import Row, measured, show


def main() -> int:
    wanted = sys.argv[1:]
    names = [path.stem for path in sorted(Path(__file__).parent.glob("*.py")) if not path.stem.startswith("_")]
    if unknown := [name for name in wanted if name not in names]:
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    # A process each, one after the other: nothing is measured on the heap another one left behind
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as pool:
        for found in pool.map(measured, [name for name in names if not wanted or name in wanted]):
            rows += found
    return 0 if show(rows) else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
