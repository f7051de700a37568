"""What a canonical op is: a fact sheet, independent of how the op is spelled in a graph."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

Normalizer = Callable[[Any], Any]


class QParamClass(enum.Enum):
    """How the quantization parameters of an op's output come about."""

    OWN = "own"  # observed: the output has a range of its own
    SAME = "same"  # moved data, nothing computed: the output has its input's parameters
    FIXED = "fixed"  # mathematics bounds the range: sigmoid, softmax, tanh
    NEVER = "never"  # has no quantized form


@dataclass(frozen=True, slots=True)
class Attr:
    """One attribute of an op.

    Args:
        default: the value a call that does not mention the attribute has.
        strict: a pattern that does not mention the attribute matches only the default (``add.alpha``); a free one may
            have any value and is read from the match (``stride``).
        normal: brings the spellings of one value into one form (``stride=2`` and ``stride=(2, 2)``).
    """

    default: Any = None
    strict: bool = False
    normal: Normalizer | None = None


@runtime_checkable
class Symbolic(Protocol):
    """What stands for a value while a pattern's body runs."""

    def __qfx_op__(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """A canonical op, such as ``ops.conv2d``, whatever its spelling.

    Called on pattern terms (inside a ``@pattern`` function) it builds a term; arguments are the inputs, then the
    attributes, in order, or by name.

    Args:
        name: the field's usual name.
        inputs: names of the tensor (or scalar) inputs; a name ending in ``*`` takes a list (``cat``).
        attrs: the other arguments.
        commutative: the first two inputs may be swapped. A fact of the op, never of a pattern.
        recomputable: cheap and pure, so a match may use a copy of it although others use it too.
        qparams: how the output's quantization parameters come about.
        clamp: the op only bounds its input (relu, relu6, hardtanh, clamp).
        optional: inputs that may be absent.
    """

    name: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    commutative: bool = False
    recomputable: bool = False
    qparams: QParamClass = QParamClass.NEVER
    clamp: bool = False
    optional: frozenset[str] = frozenset()
    opaque: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of inputs, then attributes, in call order."""
        return (*self.input_names, *self.attrs)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of inputs, without the star of those that take a list."""
        return tuple(name.rstrip("*") for name in self.inputs)

    def slot(self, name: str) -> int:
        """Position of the input called `name`.

        Raises:
            ValueError: the op has no such input.
        """
        if name not in self.input_names:
            raise ValueError(f"{self.name} has no input {name!r}; it has {', '.join(self.input_names)}")
        return self.input_names.index(name)

    def normalize(self, name: str, value: Any) -> Any:
        """`value` in the one form attribute `name` is read in."""
        attr = self.attrs.get(name)
        return attr.normal(value) if attr is not None and attr.normal is not None else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Build a pattern term; needs at least one symbolic argument."""
        for value in _flat(args):
            if isinstance(value, Symbolic):
                return value.__qfx_op__(self, args, kwargs)
        for value in kwargs.values():
            if isinstance(value, Symbolic):
                return value.__qfx_op__(self, args, kwargs)
        raise TypeError(
            f"ops.{self.name} was called without a symbolic value. Ops build patterns: call them inside a @pattern "
            f"function, on its parameters; inside a rule use g.call(ops.{self.name}, ...)."
        )

    def __repr__(self) -> str:
        return f"ops.{self.name}"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Ops are compared by identity: a pickled or copied graph's metadata must come back to the same object.
        from qfx.ops import lookup

        return (lookup, (self.name,))

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Op:
        return self


def _flat(args: tuple[Any, ...]) -> Any:
    for value in args:
        if isinstance(value, list | tuple):
            yield from _flat(tuple(value))
        else:
            yield value
