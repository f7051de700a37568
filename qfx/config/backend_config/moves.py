"""Patterns the original leaves out, each of which would break an integer region: data moves, pools, batch norms."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from qfx.config.backend_config import dtypes
from qfx.config.backend_config.backend_config import BackendConfig
from qfx.config.backend_config.engines import get_native_backend_config
from qfx.config.backend_config.observation_type import ObservationType
from qfx.config.backend_config.pattern_config import BackendPatternConfig

SELECTIONS: tuple[Any, ...] = (
    operator.getitem,
    torch.chunk,
    torch.split,
    torch.tensor_split,
    torch.unbind,
    torch.select,
    torch.t,
    torch.movedim,
    torch.flip,
    torch.roll,
    torch.tile,
    torch.clone,
    "expand",
    nn.Flatten,
    nn.Unflatten,
    torch.unflatten,
    nn.ChannelShuffle,
    functional.channel_shuffle,
)
"""What gives values it was given, and no others. Observed again, part of a value would pull an average its way."""

MOVES: tuple[Any, ...] = (
    *SELECTIONS,
    functional.pad,
    *(getattr(nn, f"{kind}Pad{n}d") for kind in ("Zero", "Constant", "Reflection", "Replication") for n in (1, 2, 3)),
    nn.Upsample,
    nn.UpsamplingNearest2d,
    nn.UpsamplingBilinear2d,
)
"""What only moves values, or fills in between."""

POOLS: tuple[Any, ...] = tuple(
    getattr(home, name.format(n))
    for home, name in ((nn, "AdaptiveMaxPool{}d"), (functional, "adaptive_max_pool{}d"))
    for n in (1, 2, 3)
)

NORMS: tuple[Any, ...] = (functional.batch_norm, torch.batch_norm, nn.BatchNorm1d)
"""Spellings of a batch norm that has nothing to be folded into; the original lists the modules 2d and 3d only."""


def get_default_backend_config() -> BackendConfig:
    """Return what ``prepare_fx`` uses when no backend config is given: the native one, data moves, adaptive max
    pools and batch norms.

    Padding, slicing, splitting and their like have the parameters of their input, and so have pools. The original does
    not list them, so each of them leaves the integers and comes back. A backend config you pass yourself is taken as it
    is.
    """
    made = get_native_backend_config()
    known = {config.pattern for config in made.configs if not isinstance(config.pattern, tuple)}
    for names, observed in (
        ((*MOVES, *POOLS), ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT),
        (NORMS, ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT),
    ):
        for name in names:
            if name not in known:
                config = BackendPatternConfig(name).set_observation_type(observed)
                made.set_backend_pattern_config(config.add_dtype_config(dtypes.default_op_quint8))
    return made
