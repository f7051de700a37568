"""What a walk over a model asks of each module: where it is, and whether to go into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from qfx.eager.errors import ModuleStateError
from qfx.errors import QfxError
from qfx.nn.intrinsic import _FusedModule
from qfx.nn.qat.module import QATModule


def is_fused(module: nn.Module) -> bool:
    """Whether a module is several layers in one, in float or in training: it is observed and replaced as a whole."""
    trained = isinstance(module, QATModule) and issubclass(module._FLOAT_MODULE, _FusedModule)
    return trained or isinstance(module, _FusedModule)


@contextmanager
def at(path: str, module: nn.Module) -> Iterator[None]:
    """Tell an error of the block where it happened; the innermost place counts."""
    try:
        yield
    except QfxError as error:
        if not any(note.startswith("at ") for note in getattr(error, "__notes__", ())):
            error.add_note(f"at {path or 'the model itself'} ({type(module).__name__})")
        raise


def devices_of(module: nn.Module) -> set[torch.device]:
    """The devices of a module's parameters and buffers, those without storage (meta) left out."""
    tensors = (*module.parameters(), *module.buffers())
    return {tensor.device for tensor in tensors if tensor.device.type != "meta"}


def only_device(module: nn.Module, step: str) -> torch.device | None:
    """The one device a module is on, or None for one without tensors.

    Raises:
        ModuleStateError: it is on several; ``step`` says what cannot be done then.
    """
    devices = devices_of(module)
    if len(devices) > 1:
        names = " and ".join(sorted(map(str, devices)))
        raise ModuleStateError(
            f"{step} only works with cpu or single-device CUDA modules, but this {type(module).__name__} is on "
            f"{names}; move it to one of them"
        )
    return next(iter(devices), None)
