"""What this CPU multiplies bytes with."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has_tiles() -> bool:
    """Whether it has AMX, tiles of bytes, which onednn takes for its products wherever it can."""
    return bool(torch.cpu._is_amx_tile_supported())
