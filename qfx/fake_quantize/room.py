"""Memory that a training step leaves for the next one.

The rounded weights of a model live from the forward pass to the backward pass. Allocated anew in every step, they go
back to the operating system and come again as pages of zeros: 12,000 page faults a step of ResNet-18, a sixth of its
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

_kept: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()

# Private to torch, which counts by it for CUDA graphs; without it every step allocates as before.
_readers: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)
_ALONE = 2
"""Who holds the memory of a tensor that nobody else has: the tensor, and the object it is asked by."""


def room_for(owner: Any, like: Tensor) -> Tensor:
    """A tensor to be overwritten, with the shape and layout of `like`, without a gradient.

    It is the one `owner` got before where nothing has that memory any more: no graph waiting for its backward pass, no
    alias or view in anybody's hands. It is kept for as long as `owner` lives, or until one is asked for without
    gradients: a model that does not train needs no memory for the next step.
    """
    kept = _kept.pop(owner, None)  # taken out meanwhile: two threads do not get the same
    if kept is None or not _is_free(kept, like):
        kept = torch.empty_like(like, requires_grad=False)
    if _readers is not None and torch.is_grad_enabled():
        _kept[owner] = kept
    return kept.detach()


def _is_free(kept: Tensor, like: Tensor) -> bool:
    same = kept.shape == like.shape and kept.stride() == like.stride() and kept.dtype == like.dtype
    return same and _readers is not None and _readers(kept.untyped_storage()._cdata) == _ALONE
