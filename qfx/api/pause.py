"""A pause of Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Do not look for garbage inside the block.

    Graph work makes many small objects that stay, so collections find nothing and cost a fifth of the time. What was
    made inside joins the oldest generation, as if it had lived through the collections it was spared; else the first
    allocation afterwards would walk all of it. A collector that was off stays off.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():  # what a program froze for itself stays frozen
                gc.freeze()
                gc.unfreeze()
            gc.enable()
