"""A BackendConfig compiled to patterns of the engine."""

from __future__ import annotations

from qfx.config import BackendConfig
from qfx.passes import backend_pattern
from qfx.passes.backend_pattern import BackendPattern
from qfx.patterns import Index


def compiled(backend: BackendConfig) -> Index[BackendPattern]:
    """Every pattern of a backend, longest first; see `qfx.passes.backend_pattern`."""
    patterns = map(backend_pattern.compiled, backend.configs)
    return Index((each.pattern, 0, each) for each in patterns)
