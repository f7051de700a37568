"""Put the old names in place, and take them away."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.fx import Tracer
from torch.package.package_exporter import PackageExporter

from qfx import layout
from qfx.compat.finder import Finder
from qfx.compat.modules import OldModule
from qfx.compat.table import BESIDE, REGISTERS, ROOTS, below, sources
from qfx.nn.stubs import is_layer

_lock = threading.RLock()
_ABSENT = object()


@dataclass
class _Installed:
    """What `uninstall` puts back.

    Attributes:
        modules: what ``sys.modules`` had under the old paths.
        beside: names of the modules that were loaded already, of those that import from the old ones.
        attributes: (module or class, name, what it had under it) in the order they were set.
        finder: on ``sys.meta_path``.
    """

    modules: dict[str, ModuleType]
    beside: set[str]
    attributes: list[tuple[Any, str, Any]] = field(default_factory=list)
    finder: Finder = field(default_factory=Finder)


_state: _Installed | None = None


def installed() -> bool:
    """Whether the old names are qfx's now."""
    return _state is not None


def install() -> None:
    """Let ``torch.ao.quantization``, ``torch.ao.nn``, ``torch.quantization`` and the like resolve to qfx.

    From then on; what was imported from them before stays what it was, so call this first. It does not matter whether
    this PyTorch still ships the originals. A second call does nothing.

    Converted models are laid out as the original lays them out meanwhile; see `qfx.layout`.

    ``torch.ao.quantization.pt2e``, ``quantizer`` and ``quantize_pt2e`` raise an ImportError that says they come later.

    Example:
        >>> import qfx.compat
        >>> qfx.compat.install()
        >>> import torch.ao.quantization
        >>> torch.ao.quantization.QConfig is qfx.QConfig
        True
        >>> qfx.compat.uninstall()
    """
    global _state
    with _lock:
        if _state is not None:
            return
        before = {name: module for name, module in sys.modules.items() if below(name, ROOTS)}
        state = _Installed(before, {name for name in sys.modules if below(name, BESIDE)})
        for name in before:
            del sys.modules[name]
        sys.modules.update({name: before[name] for name in REGISTERS if name in before})
        sys.meta_path.insert(0, state.finder)
        _package("torch.ao", state)
        made = {name: OldModule(name, found) for name, found in sources().items()}
        for name, module in made.items():
            sys.modules[name] = module
            owner, _, attribute = name.rpartition(".")
            _set(state, sys.modules[owner], attribute, module)
        for name in made:
            # ``fuse_modules`` is a module and a function of its package; the package shows the function.
            owner, _, attribute = name.rpartition(".")
            if owner in made:
                for source in made[owner]._qfx_sources:
                    found = getattr(importlib.import_module(source), attribute, None)
                    if found is not None and not isinstance(found, ModuleType):
                        setattr(made[owner], attribute, found)
                        break
        for name in REGISTERS:
            if name in before:
                owner, _, attribute = name.rpartition(".")
                _set(state, sys.modules[owner], attribute, before[name])
        _set(state, layout, "as_original", True)
        _set(state, PackageExporter, "_can_implicitly_extern", _like_torch(PackageExporter._can_implicitly_extern))
        _set(state, Tracer, "is_leaf_module", _keeps_our_layers(Tracer.is_leaf_module))
        _state = state


def uninstall() -> None:
    """Undo `install`: the old names are again what they were. Nothing happens where it was not called."""
    global _state
    with _lock:
        if _state is None:
            return
        sys.meta_path.remove(_state.finder)
        for name in [name for name in sys.modules if below(name, ROOTS)]:
            del sys.modules[name]
        for name in [name for name in sys.modules if below(name, BESIDE) and name not in _state.beside]:
            owner, _, attribute = name.rpartition(".")
            del sys.modules[name]  # bound to qfx; whoever imports it next gets one that is not
            if owner in sys.modules:
                sys.modules[owner].__dict__.pop(attribute, None)
        sys.modules.update(_state.modules)
        for module, name, value in reversed(_state.attributes):
            if value is _ABSENT:
                module.__dict__.pop(name, None)
            else:
                setattr(module, name, value)
        _state = None


def _like_torch(is_external: Callable[[Any, str], bool]) -> Callable[[Any, str], bool]:
    """``torch.package`` takes what is torch's for granted where a package is loaded; and what stands in for it."""

    def can_implicitly_extern(exporter: Any, module_name: str) -> bool:
        return below(module_name, ("qfx",)) or is_external(exporter, module_name)

    return can_implicitly_extern


def _keeps_our_layers(is_leaf: Callable[[Any, nn.Module, str], bool]) -> Callable[[Any, nn.Module, str], bool]:
    """A plain ``torch.fx.Tracer`` keeps the layers of ``torch.ao.nn`` whole; and what stands in for them."""

    def is_leaf_module(tracer: Any, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m) or is_leaf(tracer, m, module_qualified_name)

    return is_leaf_module


def _set(state: _Installed, module: Any, name: str, value: Any) -> None:
    if not isinstance(module, OldModule):
        state.attributes.append((module, name, module.__dict__.get(name, _ABSENT)))
    setattr(module, name, value)


def _package(name: str, state: _Installed) -> None:
    """The package the old ones stand in, where this PyTorch has none any more."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        made = ModuleType(name)
        made.__path__ = []
        sys.modules[name] = made
        _set(state, torch, name.rpartition(".")[2], made)
