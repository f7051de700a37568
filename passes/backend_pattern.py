"""One pattern of a BackendConfig compiled to the engine's terms, and what it matched in the words of the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from qfx.config import BackendPatternConfig, MatchAllNode, public_name
from qfx.errors import ConfigError
from qfx.graph import Param, Reading
from qfx.ops import Op
from qfx.patterns import Match, Pattern
from qfx.patterns.catalogue.weighted import any_value
from qfx.patterns.language import from_term
from qfx.patterns.terms import Capture, OpTerm
from qfx.spellings import calls, module_spelling, opaque

Predicate = Callable[[Reading], bool]
LINE = "backend config"

# What a class in a pattern is meant with any of; whether a kernel pads so is the target's business.
ANY_PADDING = ("padding_mode",)
ANY_MODE = (*ANY_PADDING, "training")


@dataclass(frozen=True, eq=False)
class BackendPattern:
    """A compiled pattern.

    Attributes:
        config: what it was made of.
        pattern: its terms.
        shape: the nested format with the name each element is bound to: ``("op0", ("op1", "op2"), "any3")``.
    """

    config: BackendPatternConfig
    pattern: Pattern
    shape: Any

    @property
    def shown(self) -> str:
        """The pattern in words, in the order its operators are called: ``Conv2d > ReLU``."""
        parts = _in_order(self.config.nested_pattern)
        return " > ".join("anything" if part is MatchAllNode else public_name(part) for part in parts)

    def matched(self, found: Match, of: Callable[[Any], Any] | None = None) -> Any:
        """What was matched, in the nested format: a node for each operator, the value for each ``MatchAllNode``.

        Args:
            found: a match of `pattern`.
            of: gives something else for each element; called with the `Reading` of an operator, or with the value.
        """

        def at(shape: Any) -> Any:
            if isinstance(shape, tuple):
                return tuple(map(at, shape))
            value = found.bound.get(shape)
            return _raw(value) if of is None else of(value)

        return at(self.shape)

    def root(self, found: Match) -> Node:
        """The node with the weight: what the config's ``root_node_getter`` finds, else the first operator called.

        Raises:
            ConfigError: the getter returns no node of the match, or the pattern needs one and has none.
        """
        getter, matched = self.config._root_node_getter, self.matched(found)
        root = matched if getter is None else getter(matched)
        while getter is None and isinstance(root, tuple):
            root = root[-1]
        if isinstance(root, Node) and root in found.nodes:
            return root
        raise ConfigError(
            f"the root of pattern {self.shown} is {root!r}, no operator of it; give the config a root_node_getter, a "
            "function of what was matched, in the nested format, to the node with the weight"
        )


def compiled(config: BackendPatternConfig, anyhow: tuple[str, ...] = ANY_PADDING) -> BackendPattern:
    """Compile one pattern.

    An element that names a module class matches modules of exactly that class; one that names a function or method
    matches every spelling of its op that is not a module; ``MatchAllNode`` matches any value, which stays outside the
    match.

    Args:
        config: the pattern, in either format.
        anyhow: attributes of classes that may have any value.

    Raises:
        ConfigError: no pattern, an impossible one, or an element that is no operator.
    """
    captures: list[Capture] = []
    numbers = iter(range(10_000))

    def term(part: Any) -> tuple[Any, Any]:
        head, *inputs = part if isinstance(part, tuple) else (part,)
        name = f"{'any' if head is MatchAllNode else 'op'}{next(numbers)}"
        if head is MatchAllNode:
            captures.append(Capture(name=name, optional=True, line=LINE))
            return captures[-1], name
        made = [term(each) for each in inputs]
        op, spelled, where = _element(head)
        attrs = tuple((name, any_value) for name in anyhow if spelled is not None and name in op.attrs)
        anchor = OpTerm(
            op=op,
            inputs=tuple(each for each, _ in made),
            attrs=attrs,
            name=name,
            loose=True,
            spelled=spelled,
            where_=where,
            line=LINE,
        )
        return anchor, (name, *(shape for _, shape in made)) if made else name

    nested = config.nested_pattern
    anchor, shape = term(nested)
    if not isinstance(anchor, OpTerm):
        raise ConfigError(f"a pattern ends with an operator, not with MatchAllNode: {nested!r}")
    title = " > ".join(getattr(part, "__name__", str(part)) for part in _in_order(nested))
    return BackendPattern(config, from_term(title, anchor, LINE, captures), shape)


def _element(part: Any) -> tuple[Op, frozenset[Any] | None, tuple[Predicate, ...]]:
    if isinstance(part, type) and issubclass(part, nn.Module):
        spelling = module_spelling(part)
        return (spelling.op if spelling is not None else opaque(part)), frozenset({part}), ()
    if not (callable(part) or isinstance(part, str)):
        raise ConfigError(f"a pattern is made of module classes, functions and names of tensor methods, got {part!r}")
    spellings = calls(part)
    return (spellings[0].op if spellings else opaque(part)), None, (_is_call,)


def _is_call(reading: Reading) -> bool:
    return reading.dialect != "module"


def _in_order(nested: Any) -> list[Any]:
    """The elements of a nested pattern as they are called: inputs, then what reads them."""
    if not isinstance(nested, tuple):
        return [nested]
    head, *inputs = nested
    return [*(part for each in inputs for part in _in_order(each)), head]


def _raw(value: Any) -> Any:
    return value.node if isinstance(value, Reading | Param) else value
