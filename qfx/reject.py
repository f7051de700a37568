"""How a predicate, a rule or a kernel says no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reject:
    """Why something declines, and the node it is about.

    Attributes:
        reason: one clause fit for a report, or a callable that makes it, so that text is only made when somebody reads
            it.
        node: the node, where there is one.

    Example:
        >>> str(Reject("onednn takes symmetric weights only"))
        'onednn takes symmetric weights only'
    """

    reason: str | Callable[[], str]
    node: Any = None

    @property
    def text(self) -> str:
        """The reason, formatted."""
        return self.reason if isinstance(self.reason, str) else self.reason()

    def __str__(self) -> str:
        return self.text
