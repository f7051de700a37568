"""The answer of a kernel that does not take a layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reject:
    """Why a kernel does not take a layer; ``supports`` returns one, or ``None`` where the kernel takes it.

    Attributes:
        reason: one clause naming the limit, fit for a report (``"onednn takes symmetric weights only"``).

    Example:
        >>> str(Reject("onednn takes symmetric weights only"))
        'onednn takes symmetric weights only'
    """

    reason: str

    def __str__(self) -> str:
        return self.reason
