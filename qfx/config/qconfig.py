"""QConfig: which observer a layer's activations get and which its weights."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, TypeAlias

from torch import nn

from qfx.errors import ConfigError
from qfx.observers import ObserverFactory, ReuseInputObserver


class _Pair(NamedTuple):
    activation: Any
    weight: Any


class QConfig(_Pair):
    """How one layer is quantized: a factory of observers for its activations and one for its weights.

    Both are classes or factories (``MinMaxObserver``, ``MinMaxObserver.with_args(...)``), called once for each place
    they apply to; never observers, which would be shared. A named tuple: it unpacks, hashes and compares as one.

    Args:
        activation: called without arguments for the observer of an input or output; ``None`` leaves it float.
        weight: the same for the weight.

    Raises:
        ConfigError: an observer was given instead of a factory.

    Example:
        >>> import torch
        >>> from qfx.observers import MinMaxObserver, default_weight_observer
        >>> signed = QConfig(MinMaxObserver.with_args(dtype=torch.qint8), default_weight_observer)
    """

    __slots__ = ()

    def __new__(cls, activation: Any, weight: Any) -> QConfig:
        """Make a pair; see the class."""
        for role, given in (("activation", activation), ("weight", weight)):
            if isinstance(given, nn.Module):
                name = type(given).__name__
                raise ConfigError(
                    "QConfig received observer instance, please pass observer class instead. Observers are made one "
                    f"per place, so give {name} or {name}.with_args(...) as {role}"
                )
        return super().__new__(cls, activation, weight)


QConfigAny: TypeAlias = QConfig | None
"""A QConfig, or ``None`` for *leave it float*."""


def qconfig_equals(q1: QConfigAny, q2: QConfigAny) -> bool:
    """Whether two configurations make the same observers.

    Factories are equal when they make the same class with the same fixed arguments; arguments computed at each call
    (``with_callable_args``) are not compared, because they say where an observer lives and not what it does.

    Example:
        >>> from qfx.config import get_default_qconfig
        >>> a, b = get_default_qconfig("x86"), get_default_qconfig("x86")
        >>> a == b, qconfig_equals(a, b)
        (False, True)
    """
    if q1 is None or q2 is None:
        return q1 is q2
    return factories_equal(q1.activation, q2.activation) and factories_equal(q1.weight, q2.weight)


def factories_equal(a: object, b: object) -> bool:
    """Whether two observer classes or factories make the same: one class with the same fixed arguments.

    An argument that is a factory itself (``observer=`` of a fake-quantize module) is compared in the same way.
    """
    if a is b:
        return True
    first, second = _partial_of(a), _partial_of(b)
    if first is None or second is None:
        return bool(a == b)
    mine, theirs = first.keywords, second.keywords
    return (
        (first.func, first.args) == (second.func, second.args)
        and mine.keys() == theirs.keys()
        and all(factories_equal(value, theirs[name]) for name, value in mine.items())
    )


def _partial_of(factory: object) -> functools.partial[Any] | None:
    if isinstance(factory, ObserverFactory):
        return factory.p
    return factory if isinstance(factory, functools.partial) else None


def observer_class(factory: object) -> type | None:
    """Return the class a factory makes, or None where that cannot be told without calling it."""
    partial = _partial_of(factory)
    made: object = partial.func if partial is not None else factory
    return made if isinstance(made, type) else None


def reuses_input(qconfig: QConfigAny) -> bool:
    """Whether the output is to have the parameters of the input (the default of ``reshape``)."""
    made = observer_class(qconfig.activation) if qconfig is not None else None
    return made is not None and issubclass(made, ReuseInputObserver)
