"""A spelling: one concrete way an op appears in a graph, and how to read its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qfx.errors import QfxError
from qfx.ops import Op

MISSING: Any = object()

# Other names torch takes arguments by: numpy's, and the one by which `view` and `expand` take theirs together.
_ALIASES = {
    "a": "input",
    "x": "input",
    "x1": "input",
    "x2": "other",
    "axis": "dim",
    "axis0": "dim0",
    "axis1": "dim1",
    "keepdims": "keepdim",
    "size": "shape",
}

# What reading a node's arguments gives: canonical name -> value as written in the graph.
Arguments = dict[str, Any]
Reader = Callable[[tuple[Any, ...], Mapping[str, Any]], Arguments]


class UnreadableCall(QfxError):
    """A call does not fit the signature its spelling was registered with; the node is then read as an opaque op."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a spelled signature: its Python name, the canonical name it fills, its default."""

    python: str
    canonical: str
    default: Any = MISSING


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable, in order, as data.

    ``star`` is the canonical name that takes all remaining positional arguments (``x.view(2, 3)``).
    """

    parameters: tuple[Parameter, ...]
    star: str | None = None

    @cached_property
    def _canonical(self) -> dict[str, str]:
        """Python name -> canonical name."""
        known = {p.python: p.canonical for p in self.parameters}
        return known | ({self.star: self.star} if self.star else {})

    @staticmethod
    def parse(text: str) -> Signature:
        """Read the compact form ``"input>x weight>w bias>b=None stride=1 *shape"``.

        Names without ``>`` are canonical as they are; a default is a Python literal without blanks.
        """
        parameters, star = [], None
        for part in text.split():
            if part.startswith("*"):
                star = part[1:]
                continue
            names, _, default = part.partition("=")
            python, _, canonical = names.partition(">")
            value = _literal(default) if default else MISSING
            parameters.append(Parameter(python, canonical or python, value))
        return Signature(tuple(parameters), star)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Canonical name -> value for a call.

        Raises:
            UnreadableCall: too many, unknown or missing arguments.
        """
        found: Arguments = {}
        if len(args) > len(self.parameters) and self.star is None:
            raise UnreadableCall(f"{len(args)} positional arguments where the signature takes {len(self.parameters)}")
        for parameter, value in zip(self.parameters, args, strict=False):
            found[parameter.canonical] = value
        if self.star is not None and len(args) > len(self.parameters):
            found[self.star] = _unstar(args[len(self.parameters) :])
        known = self._canonical
        for name, value in kwargs.items():
            name = name if name in known else _ALIASES.get(name, name)
            if name not in known or known[name] in found:
                raise UnreadableCall(f"unknown argument {name!r}")
            found[known[name]] = value
        for parameter in self.parameters:
            if parameter.canonical not in found:
                if parameter.default is MISSING:
                    raise UnreadableCall(f"no argument {parameter.python!r}")
                found[parameter.canonical] = parameter.default
        return found


@dataclass(frozen=True, slots=True)
class CallSpelling:
    """A function, method or aten overload that spells `op`.

    Args:
        target: what ``node.target`` is.
        op: the canonical op.
        signature: how the arguments map to canonical names.
        fixed: canonical attributes the spelling implies (``aten.convolution`` with ``transposed=False`` ...).
        inplace: the call writes to its first argument.
        adjust: last word on the canonical arguments; may raise `UnreadableCall` to refuse the call.
        primary: output 0 of a tuple is the value (``aten._native_batch_norm_legit_no_training``); other outputs make
            the node opaque.
    """

    target: Any
    op: Op
    signature: Signature
    fixed: Mapping[str, Any]
    inplace: bool = False
    adjust: Callable[[Arguments], Arguments] | None = None
    primary: bool = False

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Canonical name -> value; see `Signature.bind` for the error."""
        found = self.signature.bind(args, kwargs)
        found.update(self.fixed)
        return self.adjust(found) if self.adjust is not None else found


@dataclass(frozen=True, slots=True)
class ModuleSpelling:
    """A module class that spells `op`.

    Args:
        cls: the class (subclasses are other spellings: a subclass may compute something else).
        op: the canonical op.
        call: signature of ``forward``.
        params: attribute of the module -> canonical input.
        attrs: attribute of the module -> canonical attribute.
        fixed: canonical attributes the class implies.
        adjust: last word on the canonical arguments, given the module.
    """

    cls: type
    op: Op
    call: Signature
    params: Mapping[str, str]
    attrs: Mapping[str, str]
    fixed: Mapping[str, Any]
    adjust: Callable[[Any, Arguments], Arguments] | None = None


def stride_of_pool(found: Arguments) -> Arguments:
    """A pool that is given no stride steps by its kernel."""
    return found if found.get("stride") not in (None, [], ()) else found | {"stride": found["kernel_size"]}


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text)


def _unstar(rest: tuple[Any, ...]) -> Any:
    """``x.view(2, 3)`` and ``x.view((2, 3))`` mean the same."""
    return tuple(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else rest
