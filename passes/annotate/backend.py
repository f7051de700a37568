"""A BackendConfig compiled to patterns of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from qfx.config import BackendConfig, BackendPatternConfig
from qfx.graph import Reading
from qfx.ops import Op
from qfx.patterns import Index, Pattern
from qfx.patterns.catalogue.weighted import padded_anyhow
from qfx.patterns.language import from_term
from qfx.patterns.terms import OpTerm
from qfx.spellings import calls, module_spelling, opaque

Predicate = Callable[[Reading], bool]


def compiled(backend: BackendConfig) -> Index[BackendPatternConfig]:
    """Every pattern of a backend, longest first.

    An element that names a module class matches modules of exactly that class; one that names a function or method
    matches every spelling of its op that is not a module.
    """
    return Index((_pattern(config.pattern), 0, config) for config in backend.configs if config.pattern is not None)


def _pattern(parts: Any) -> Pattern:
    chain = parts if isinstance(parts, tuple) else (parts,)
    term: OpTerm | None = None
    for position, part in enumerate(chain):
        op, spelled, where = _element(part)
        inputs = () if term is None else (term,)
        name = "root" if position == 0 else None
        # A class is meant with any padding; whether a kernel pads so is the target's business.
        attrs = tuple(padded_anyhow(op).items()) if spelled is not None else ()
        term = OpTerm(
            op=op,
            inputs=inputs,
            attrs=attrs,
            name=name,
            loose=True,
            spelled=spelled,
            where_=where,
            line="backend config",
        )
    assert term is not None
    return from_term(" > ".join(_shown(part) for part in chain), term, "backend config", [])


def _element(part: Any) -> tuple[Op, frozenset[Any] | None, tuple[Predicate, ...]]:
    if isinstance(part, type) and issubclass(part, nn.Module):
        spelling = module_spelling(part)
        return (spelling.op if spelling is not None else opaque(part)), frozenset({part}), ()
    spellings = calls(part)
    return (spellings[0].op if spellings else opaque(part)), None, (_is_call,)


def _is_call(reading: Reading) -> bool:
    return reading.dialect != "module"


def _shown(part: Any) -> str:
    return part if isinstance(part, str) else str(getattr(part, "__name__", part))
