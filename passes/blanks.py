"""Observers by the thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from qfx.graph.copying import copied_module
from qfx.observers import ObserverFactory

_OURS = "qfx.observers."


class Blanks:
    """Makes observers; those of a factory met before are copies of what it made first, at a third of the price.

    Only for our own observer classes with fixed arguments: nobody knows what a user's class does when it is made.
    """

    def __init__(self) -> None:
        self._blank: dict[Any, nn.Module] = {}

    def make(self, factory: Callable[[], Any]) -> Any:
        """What ``factory()`` gives."""
        blank = self._blank.get(factory)
        if blank is None:
            made = factory()
            fixed = isinstance(factory, ObserverFactory) and not factory.callable_args
            if fixed and type(made).__module__.startswith(_OURS):
                self._blank[factory] = copied_module(made, {})
            return made
        return copied_module(blank, {})
