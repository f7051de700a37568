"""The user's place in the code: what source lines of nodes and warnings point to."""

from __future__ import annotations

import linecache
import sys
import warnings
from functools import lru_cache
from types import FrameType

# Packages whose frames lie between the user and us: what we are made of, and what calls us on the user's behalf.
_BETWEEN = frozenset({"qfx", "torch", "networkx", "contextlib", "functools", "copy", "pickle"})
# torch.fx compiles graphs under such names.
GENERATED = "<eval_with_key>"


def user_frame() -> FrameType | None:
    """The innermost frame of the user's own code; None where there is none. A few microseconds."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_between(frame):
            return frame
        frame = frame.f_back
    return None


def is_between(frame: FrameType) -> bool:
    """Whether a frame is ours, torch's, of a graph torch compiled, or of the standard library's call wrappers."""
    return _is_between(str(frame.f_globals.get("__name__", ""))) or frame.f_code.co_filename.startswith(GENERATED)


@lru_cache(maxsize=4096)
def _is_between(module: str) -> bool:
    return module.partition(".")[0] in _BETWEEN


def user_place() -> tuple[str, str]:
    """``file:line`` of the innermost frame of the user's own code, and an entry of a stack trace for it; or empty."""
    frame = user_frame()
    return ("", "") if frame is None else _place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


@lru_cache(maxsize=4096)
def _place(file: str, line: int, name: str) -> tuple[str, str]:
    text = linecache.getline(file, line).strip()
    entry = f'File "{file}", line {line}, in {name}'
    return f"{file}:{line}", f"{entry}\n    {text}" if text else entry


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line, however many of our frames and torch's lie between.

    Filters see the user's file and module, as with a right ``stacklevel``, and by default show a message once a line.

    Args:
        message: what happened and what to do about it.
        category: the kind of warning.
    """
    frame = user_frame()
    if frame is None:  # a thread that runs nothing but torch and us
        warnings.warn(message, category, stacklevel=2)
        return
    where = frame.f_globals
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=str(where.get("__name__", "<unknown>")),
        registry=where.setdefault("__warningregistry__", {}),
    )
