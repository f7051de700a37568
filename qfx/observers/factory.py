"""Factories of observers: a class with some of its arguments already given.

A configuration must not share one observer between all the places it applies to, so it holds a factory and calls it
once per place. ``with_args`` fixes arguments now; ``with_callable_args`` computes them at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


class ObserverFactory:
    """A callable that makes a new observer each time, with keyword arguments fixed so far.

    Can be pickled and copied like the class it makes. As with ``functools.partial``, two factories are equal only if
    they are the same object; compare ``factory.p.func`` and ``factory.p.keywords`` for what they make.

    Attributes:
        p: a ``functools.partial`` of the observer class.
        callable_args: argument name -> function computing it at each call; an argument given at the call wins.

    Example:
        >>> from qfx.observers import MinMaxObserver
        >>> narrow = MinMaxObserver.with_args(quant_min=0, quant_max=127)
        >>> narrow() is narrow()
        False
    """

    def __init__(self, p: partial[Any]) -> None:
        self.p = p
        self.callable_args: dict[str, Callable[[], Any]] = {}

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Return a new observer; arguments given here win over fixed and computed ones."""
        computed = {name: make() for name, make in self.callable_args.items() if name not in keywords}
        return self.p(*args, **computed, **keywords)

    def __repr__(self) -> str:
        return repr(self.p) + repr(self.callable_args)

    def with_args(self, **kwargs: Any) -> ObserverFactory:
        """Return a new factory with more arguments fixed; later ones replace earlier ones."""
        made = ObserverFactory(partial(self.p, **kwargs))
        made.callable_args = {name: make for name, make in self.callable_args.items() if name not in kwargs}
        return made

    def with_callable_args(self, **kwargs: Callable[[], Any]) -> ObserverFactory:
        """Return a new factory whose named arguments are computed at each call."""
        made = ObserverFactory(self.p)
        made.callable_args = {**self.callable_args, **kwargs}
        return made


def with_args(cls: Callable[..., Any], /, **kwargs: Any) -> ObserverFactory:
    """Return a factory of ``cls`` with arguments fixed; observer classes have it as a class method."""
    return ObserverFactory(partial(cls, **kwargs))


def with_callable_args(cls: Callable[..., Any], /, **kwargs: Callable[[], Any]) -> ObserverFactory:
    """Return a factory of ``cls`` whose named arguments are computed at each call."""
    return ObserverFactory(partial(cls)).with_callable_args(**kwargs)
