"""The passes compiled into PyTorch, and what must be true of what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.jit._recursive import wrap_cpp_module

from qfx.errors import ConfigError, KernelError


def compiled_pass(name: str) -> Callable[..., Any]:
    """A pass of ``torch._C``.

    Raises:
        KernelError: this build of PyTorch has no such pass.
    """
    found: Callable[..., Any] | None = getattr(torch._C, name, None)
    if found is None:
        raise KernelError(
            f"this build of PyTorch ({torch.__version__}) lacks {name}, which quantizes TorchScript; use "
            "qfx.prepare_fx and qfx.convert_fx on the module the script was made from"
        )
    return found


def check_script(model: Any, caller: str) -> None:
    """Refuse what is no TorchScript module with a forward.

    Raises:
        ConfigError: says what it is.
    """
    if not isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(
            f"input must be a script module, got: {type(model)}; make one for {caller} by torch.jit.script or "
            "torch.jit.trace, or use qfx.prepare_fx"
        )
    if not model._c._has_method("forward"):
        raise ConfigError(f"{caller}: this script module does not have forward method")


def check_keys(qconfig_dict: Mapping[Any, Any], caller: str) -> None:
    """Refuse a configuration by something else than paths.

    Raises:
        ConfigError: names the first key that is no text.
    """
    for key in qconfig_dict:
        if not isinstance(key, str):
            raise ConfigError(
                f"{caller} takes a dictionary from paths to QConfigs ('' is the whole model); {key!r} is no path: "
                "qconfig_dict should only contain names(str) as keys"
            )


def changed(model: Any, made: Any, inplace: bool) -> Any:
    """The module a pass made: `model` itself with its insides, or a new one."""
    if inplace:
        model._reconstruct(made)
        return model
    return wrap_cpp_module(made)
