"""``python -m qfx.compat script.py args``: run a script that imports the old names, unedited."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from qfx.compat.install import install

_USAGE = "usage: python -m qfx.compat [-m module | script.py] [arguments ...]"


def main(arguments: list[str]) -> int:
    """Run a script or, with ``-m``, a module, as Python would, with the old names in place.

    Args:
        arguments: of the command line, the program's name left out.

    Returns:
        2, and the usage on standard error, where there is nothing to run; else 0.
    """
    as_module = arguments[:1] == ["-m"]
    rest = arguments[1:] if as_module else arguments
    if not rest or rest[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        return 2
    install()
    sys.argv = rest
    if as_module:
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(rest[0]).resolve().parent))
        runpy.run_path(rest[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
