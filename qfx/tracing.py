"""``with qfx.trace(path):`` records every rewrite as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class Event:
    """One rewrite.

    Attributes:
        pass_name: the pass that ran.
        rule: the rule that fired, and ``line``, where it is written.
        anchor: name of the node it replaced.
        before: the matched nodes as text.
        after: the new nodes as text.
        microseconds: time the rule took.
    """

    pass_name: str
    rule: str
    line: str
    anchor: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    microseconds: float


_ACTIVE: ContextVar[IO[str] | None] = ContextVar("qfx_trace", default=None)


@contextmanager
def trace(path: str | Path) -> Iterator[None]:
    """Record each rewrite made inside the block to `path`, one JSON object a line.

    Off, tracing costs one test a rewrite.

    Example:
        >>> with trace("rewrites.jsonl"):  # doctest: +SKIP
        ...     prepared = qfx.prepare_fx(model, mapping, (x,))
    """
    with Path(path).open("w", encoding="utf-8") as out:
        token = _ACTIVE.set(out)
        try:
            yield
        finally:
            _ACTIVE.reset(token)


def active() -> bool:
    """Whether a trace is being recorded here."""
    return _ACTIVE.get() is not None


def record(event: Event) -> None:
    """Write one event to the active trace."""
    out = _ACTIVE.get()
    if out is not None:
        out.write(json.dumps(asdict(event)) + "\n")
