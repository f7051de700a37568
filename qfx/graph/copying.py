"""Copying a graph module."""

from __future__ import annotations

import copy
import warnings

from torch.fx import GraphModule


def copied(gm: GraphModule) -> GraphModule:
    """A deep copy that shares nothing with `gm`.

    torch 2.13 warns about its own pytree classes when an exported module is copied; users cannot act on that, so this
    one message is kept from them for the length of the copy.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
        return copy.deepcopy(gm)
