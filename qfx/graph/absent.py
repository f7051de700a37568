"""A check that an optional argument is absent, for graphs.

TorchScript compiles it and reads its annotations as objects: no ``from __future__ import annotations`` here.
"""

import torch
from torch.fx.node import has_side_effect


@has_side_effect
def absent(value: torch.Tensor | None, message: str) -> None:
    """Raise AssertionError with ``message`` unless ``value`` is None."""
    assert value is None, message
