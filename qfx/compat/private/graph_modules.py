"""Questions about prepared models (``fx.graph_module``)."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

from qfx.api.modules import ObservedGraphModule, ObservedStandaloneGraphModule


def _is_observed_module(module: Any) -> bool:
    """Whether `prepare_fx` made it."""
    return isinstance(module, ObservedGraphModule)


def _is_observed_standalone_module(module: Any) -> bool:
    """Whether it was prepared as a module of its own inside another."""
    return isinstance(module, ObservedStandaloneGraphModule)


__all__ = ["GraphModule", "_is_observed_module", "_is_observed_standalone_module"]
