"""A BackendConfig compiled to patterns of the engine."""

from __future__ import annotations

from functools import lru_cache

from torch.nn.modules.batchnorm import _BatchNorm

from qfx.config import BackendConfig, BackendPatternConfig
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
    patterns = (backend_pattern.compiled(each, _anyhow(each)) for each in backend.configs)
    return Index((each.pattern, 0, each) for each in patterns)


def _anyhow(config: BackendPatternConfig) -> tuple[str, ...]:
    """A batch norm of its own may be training; one behind a layer that did not fold is no part of that layer."""
    first = config.nested_pattern
    while isinstance(first, tuple):
        first = first[-1]
    alone = isinstance(first, type) and issubclass(first, _BatchNorm)
    return backend_pattern.ANY_MODE if alone else backend_pattern.ANY_PADDING
