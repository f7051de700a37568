"""A BackendConfig compiled to patterns of the engine."""

from __future__ import annotations

from functools import lru_cache

from qfx.config import BackendConfig
from qfx.config.backend_config.moves import get_default_backend_config
from qfx.passes import backend_pattern
from qfx.passes.backend_pattern import BackendPattern
from qfx.patterns import Index
from qfx.spellings import registrations


@lru_cache(maxsize=1)
def default_backend() -> BackendConfig:
    """What `prepare_fx` goes by where it is given no backend; one object, which nobody changes."""
    return get_default_backend_config()


def compiled(backend: BackendConfig) -> Index[BackendPattern]:
    """Every pattern of a backend, longest first; see `qfx.passes.backend_pattern`."""
    return _compiled_default(registrations()) if backend is default_backend() else _compiled(backend)


@lru_cache(maxsize=1)
def _compiled_default(_: int) -> Index[BackendPattern]:
    return _compiled(default_backend())


def _compiled(backend: BackendConfig) -> Index[BackendPattern]:
    patterns = map(backend_pattern.compiled, backend.configs)
    return Index((each.pattern, 0, each) for each in patterns)
