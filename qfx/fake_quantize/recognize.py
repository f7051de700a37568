"""Telling observers and fake-quantize modules from other modules, compiled by TorchScript or not."""

from __future__ import annotations

import re

import torch
from torch import nn

from qfx.fake_quantize.base import FakeQuantizeBase
from qfx.observers import ObserverBase
from qfx.observers.affine import AffineQuantizedObserverBase

_MANGLED = re.compile(r"\.___torch_mangle_\d+")
_OURS = "qfx.observers."
_OLD = "quantization.observer"  # how callers of the original ask for any observer, or for one class of it
_FAKE_QUANTIZE = re.compile(r"(^|\.)fake_quantize\.(\w+\.)?(FakeQuantize|FusedMovingAvgObsFakeQuantize)$")


def class_of_script(mod: object) -> str | None:
    """The qualified name of the class a scripted module was compiled from; None for a module that is not scripted.

    An observer's looks like ``qfx.observers.passive.FixedQParamsObserver``.
    """
    if not isinstance(mod, torch.jit.ScriptModule):
        return None
    return _MANGLED.sub("", mod._c.qualified_name.partition(".")[2])


def is_observer_script_module(mod: object, obs_type_name: str) -> bool:
    """Whether a module is a scripted observer of a kind.

    Args:
        mod: any module.
        obs_type_name: part of the qualified class name. ``"quantization.observer"`` means any observer, and
            ``"quantization.observer.MinMaxObserver"`` ours of that name, as callers of the original ask.
    """
    name = class_of_script(mod)
    if name is None:
        return False
    if name.startswith(_OURS) and obs_type_name.startswith(_OLD):
        kind = obs_type_name[len(_OLD) :].lstrip(".")
        return not kind or name.rpartition(".")[2] == kind
    return obs_type_name in name


def is_per_channel_script_obs_instance(module: object) -> bool:
    """Whether a module is a scripted observer with one scale a channel."""
    kinds = ("PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver")
    return any(is_observer_script_module(module, f"{_OLD}.{kind}") for kind in kinds)


def is_fake_quant_script_module(mod: object) -> bool:
    """Whether a module is a scripted ``FakeQuantize`` or ``FusedMovingAvgObsFakeQuantize``."""
    name = class_of_script(mod)
    return name is not None and _FAKE_QUANTIZE.search(name) is not None


def is_activation_post_process(module: nn.Module) -> bool:
    """Whether a module is an observer or a fake-quantize module, as itself or scripted."""
    known = (ObserverBase, FakeQuantizeBase, AffineQuantizedObserverBase)
    return isinstance(module, known) or is_observer_script_module(module, _OLD)
