"""A configuration held against the module it is for: is it possible, and where do its observers live."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.config.observer_facts import observer_facts
from qfx.config.qconfig import QConfig, QConfigAny
from qfx.dtypes import is_per_channel
from qfx.errors import ConfigError
from qfx.observers.base import ObserverBase

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class PerChannelError(ConfigError):
    """Weights of this module have one scale; its message is the original's to the letter, which callers compare."""


def assert_valid_qconfig(qconfig: QConfigAny, mod: nn.Module) -> None:
    """Check a configuration for a module of eager mode.

    Raises:
        PerChannelError: a transposed convolution is to have its weight observed with one scale a channel, which eager
            mode has no kernel for.
    """
    if qconfig is None or qconfig.weight is None or not isinstance(mod, _TRANSPOSED):
        return
    # A fake-quantize module passes: what trains with scales per channel may go on to a reference graph
    if isinstance(qconfig.weight(), ObserverBase) and is_per_channel(observer_facts(qconfig.weight).qscheme):
        error = PerChannelError("Per channel weight observer is not supported yet for ConvTranspose{n}d.")
        error.add_note(f"give the weight of the {type(mod).__name__} one scale, e.g. default_weight_observer")
        raise error


def activation_is_memoryless(qconfig: QConfig) -> bool:
    """Whether the observer of activations keeps no history: a moving average with an averaging constant of 1."""
    made = qconfig.activation()
    observer = getattr(made, "activation_post_process", made)
    return getattr(observer, "averaging_constant", None) == 1


def on_device_of(qconfig: Any, module: nn.Module | None) -> Any:
    """Return a configuration whose observers have their buffers on the device of a module.

    The device is looked up each time an observer is made. Factories whose class takes no ``factory_kwargs`` stay as
    they are.

    Args:
        qconfig: a configuration; None, and what has other fields than a QConfig, is returned as it is.
        module: any module, or None.
    """
    if module is None or qconfig is None or getattr(qconfig, "_fields", None) != QConfig._fields:
        return qconfig

    def placed() -> dict[str, torch.device] | None:
        first = next((tensor for tensor in (*module.parameters(), *module.buffers())), None)
        return None if first is None else {"device": first.device}

    return QConfig(*(_placing(factory, placed) for factory in qconfig))


def _placing(factory: Any, placed: Any) -> Any:
    if not hasattr(factory, "with_args") or not hasattr(factory, "with_callable_args"):
        return factory
    try:
        factory.with_args(factory_kwargs=None)()
    except TypeError:  # its class has no such argument
        return factory
    return factory.with_callable_args(factory_kwargs=placed)
