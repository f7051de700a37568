"""Questions about prepared models (``fx.graph_module``)."""

from __future__ import annotations

from typing import Any

from qfx.api.modules import ObservedGraphModule


def _is_observed_module(module: Any) -> bool:
    """Whether `prepare_fx` made it."""
    return isinstance(module, ObservedGraphModule)


def _is_observed_standalone_module(module: Any) -> bool:
    """Whether it was prepared as a module of its own inside another."""
    return type(module).__mro__[0].__name__ == "ObservedStandaloneGraphModule" or any(
        kind.__name__ == "ObservedStandaloneGraphModule" for kind in type(module).__mro__
    )
