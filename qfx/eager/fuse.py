"""Fuse modules of a model that one quantized kernel will compute."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from qfx.eager.errors import NoSuchModuleError
from qfx.eager.fusers import get_fuser_method
from qfx.eager.hooks import carry_forward_hooks, carry_pre_hooks
from qfx.eager.places import at
from qfx.errors import ConfigError

Fuser = Callable[..., Sequence[Any]]


def fuse_known_modules(
    mod_list: Sequence[Any],
    is_qat: bool,
    additional_fuser_method_mapping: Mapping[Any, Callable[..., Any]] | None = None,
) -> list[Any]:
    """Fuse modules into the first of them.

    Args:
        mod_list: modules in order of execution.
        is_qat: for training.
        additional_fuser_method_mapping: classes to fuser methods, before the default ones. None by default.

    Returns:
        As many modules: the fused one, with the pre-hooks of the first and the hooks of the last module, then
        identities. Hooks between are lost, for there is no value any more that they could see.

    Raises:
        NoCounterpartError: nothing fuses modules of these classes.
    """
    fuser = get_fuser_method(
        tuple(type_before_parametrizations(module) for module in mod_list), additional_fuser_method_mapping
    )
    first, last = mod_list[0], mod_list[-1]
    hooks = nn.Module()  # holds them meanwhile: what the fuser copies must not call them a second time
    carry_pre_hooks(first, hooks)
    carry_forward_hooks(last, hooks)
    before = _taken(first._forward_pre_hooks), _taken(last._forward_hooks)
    try:
        fused = fuser(is_qat, *mod_list)
    except BaseException:
        first._forward_pre_hooks.update(before[0])
        last._forward_hooks.update(before[1])
        raise
    carry_pre_hooks(hooks, fused)
    carry_forward_hooks(hooks, fused)
    return [fused, *(nn.Identity().train(first.training) for _ in mod_list[1:])]


def _taken(hooks: dict[int, Any]) -> dict[int, Any]:
    taken = dict(hooks)
    hooks.clear()
    return taken


def get_module(model: Any, submodule_key: str) -> Any:
    """The module (or other attribute) at a dotted path.

    Raises:
        NoSuchModuleError: there is none.
    """
    try:
        return functools.reduce(getattr, submodule_key.split("."), model)
    except AttributeError as error:
        raise NoSuchModuleError(f"the model has no module {submodule_key!r}: {error}") from error


def set_module(model: Any, submodule_key: str, module: Any) -> None:
    """Put a module at a dotted path."""
    owner, _, name = submodule_key.rpartition(".")
    setattr(get_module(model, owner) if owner else model, name, module)


def fuse_list(
    model: nn.Module,
    modules_to_fuse: Sequence[str],
    is_qat: bool,
    fuser_func: Fuser = fuse_known_modules,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
) -> None:
    """Fuse one list of paths, in place."""
    _fuse_lists(model, [list(modules_to_fuse)], is_qat, fuser_func, fuse_custom_config_dict)


def _fuse_lists(
    model: nn.Module,
    lists: Sequence[Sequence[str]],
    is_qat: bool,
    fuser_func: Fuser,
    fuse_custom_config_dict: Mapping[str, Any] | None,
) -> None:
    additional = (fuse_custom_config_dict or {}).get("additional_fuser_method_mapping", {})
    # All are looked up before any is replaced: one relu may follow several convolutions.
    found = [[get_module(model, path) for path in paths] for paths in lists]
    met: set[nn.Module] = set()
    for modules in found:
        for place, module in enumerate(modules):
            if module in met and place:
                modules[place] = copy.deepcopy(module)
            elif module in met:
                path = lists[found.index(modules)][0]
                raise ConfigError(f"{path!r} is in two of the lists to fuse; a module can be fused in one way only")
            met.add(module)
    for paths, modules in zip(lists, found, strict=True):
        with at(" + ".join(paths), modules[0] if modules else model):
            for path, made in zip(paths, fuser_func(modules, is_qat, additional), strict=True):
                set_module(model, path, made)


def fuse(
    model: nn.Module,
    modules_to_fuse: Sequence[Any],
    is_qat: bool,
    inplace: bool = False,
    fuser_func: Fuser = fuse_known_modules,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Fuse one list of paths or several, in training or not."""
    if not inplace:
        model = copy.deepcopy(model)
    single = all(isinstance(element, str) for element in modules_to_fuse)
    if not single and any(isinstance(element, str) for element in modules_to_fuse):
        raise ConfigError(f"modules_to_fuse is one list of paths or a list of such lists, got {modules_to_fuse!r}")
    lists = [modules_to_fuse] if single else modules_to_fuse
    _fuse_lists(model, lists, is_qat, fuser_func, fuse_custom_config_dict)
    return model


def fuse_modules(
    model: nn.Module,
    modules_to_fuse: Sequence[Any],
    inplace: bool = False,
    fuser_func: Fuser = fuse_known_modules,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Fuse modules of a model in evaluation mode: batch norms are folded, relus join what is before them.

    Known are, in any dimension that has a kernel: conv, bn; conv, bn, relu; conv, relu; transposed conv, bn; linear,
    bn; linear, relu; bn, relu. The first module of a list becomes the fused one, the others become ``nn.Identity``.

    Args:
        model: a float model in evaluation mode.
        modules_to_fuse: a list of paths in order of execution, or a list of such lists. A module that stands in two
            places of the model is replaced at the path given here; the other keeps it as it is. A relu behind several
            convolutions may stand in the list of each.
        inplace: change ``model`` instead of a copy. Default False.
        fuser_func: called as ``fuser_func(modules, is_qat, additional_fuser_method_mapping)``, returns as many
            modules.
        fuse_custom_config_dict: ``additional_fuser_method_mapping``, a dict from tuples of classes to methods
            ``(is_qat, *modules) -> module``. None by default.

    Raises:
        NoSuchModuleError: a path leads nowhere.
        NoCounterpartError: nothing fuses modules of these classes.
        ModuleStateError: they are in training mode (use :func:`fuse_modules_qat`).

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> [type(m).__name__ for m in fuse_modules(model, ["0", "1", "2"])]
        ['ConvReLU2d', 'Identity', 'Identity']
    """
    return fuse(model, modules_to_fuse, False, inplace, fuser_func, fuse_custom_config_dict)


def fuse_modules_qat(
    model: nn.Module,
    modules_to_fuse: Sequence[Any],
    inplace: bool = False,
    fuser_func: Fuser = fuse_known_modules,
    fuse_custom_config_dict: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Fuse modules of a model for training: batch norms stay, beside their convolution in one container.

    Arguments and errors are those of :func:`fuse_modules`; the modules of a list are in the same mode.
    """
    return fuse(model, modules_to_fuse, True, inplace, fuser_func, fuse_custom_config_dict)
