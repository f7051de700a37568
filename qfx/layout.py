"""Whether converted models are laid out as the original laid them out, for scripts that look inside.

Numbers are the same either way, where there are any. `qfx.compat.install` switches it on; with it

- state dicts hold torch's packed objects for packed weights, which ``torch.load`` reads with ``weights_only=False``;
  without, they hold plain tensors, which are safe to load and packed for the machine that loads them,
- constants among activations stay parameters, quantized in every call; without, they are quantized once,
- a relu behind a transposed convolution, which saturation makes superfluous, is called; without, it is dropped,
- an ``nn.Identity`` whose result the model returns is observed, and stays; without, it is dropped,
- ``prepare_fx`` refuses scales per channel for the weights of transposed convolutions, as eager mode always does.

Code that is told reads the attribute when it runs: ``layout.as_original``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

as_original: bool = False
"""Set by `qfx.compat.install` and reset by `qfx.compat.uninstall`."""


@contextmanager
def plain() -> Iterator[None]:
    """Inside, the layout is qfx's own: for those who look at what is in a state dict."""
    global as_original
    before, as_original = as_original, False
    try:
        yield
    finally:
        as_original = before
