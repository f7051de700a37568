"""The hooks that feed observers, and the user's own, which follow a module into what replaces it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qfx.errors import ObservationError
from qfx.fake_quantize import FakeQuantizeBase
from qfx.observers import UniformQuantizationObserverBase


def observe_output(self: Any, input: Any, output: Any) -> Any:
    """Forward hook: show the result to the module's observer, and go on with what that returns."""
    observer = self.activation_post_process
    _check(self, observer, output, "returns")
    return observer(output)


def observe_input(self: Any, input: Any) -> Any:
    """Forward pre-hook: show the first argument to the module's observer, and go on with what that returns."""
    observer = self.activation_post_process
    if not input:
        raise ObservationError(
            f"this {type(self).__name__} was called with keywords only; the observer of its input needs the first "
            "argument by position"
        )
    first, *others = input
    _check(self, observer, first, "is called with")
    return (observer(first), *others)


def _check(module: nn.Module, observer: Any, value: Any, verb: str) -> None:
    counts = isinstance(observer, (UniformQuantizationObserverBase, FakeQuantizeBase))
    if counts and not isinstance(value, Tensor):
        raise ObservationError(
            f"this {type(module).__name__} {verb} a {type(value).__name__}, which a {type(observer).__name__} cannot "
            "observe; leave the module float (qconfig = None), quantize it dynamically, or name a custom class for it"
        )


def register_observer_hook(module: nn.Module, pre_hook: bool = False) -> None:
    """Let a module show its result (or, with ``pre_hook``, its first argument) to its ``activation_post_process``.

    The hook comes before the user's own, and once however often this is called.
    """
    if not hasattr(module, "activation_post_process"):
        raise ObservationError(
            f"Expect activation_post_process attribute already attached to the module, this {type(module).__name__} "
            "has none"
        )
    if pre_hook and observe_input not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(observe_input, prepend=True)
    elif not pre_hook and observe_output not in module._forward_hooks.values():
        module.register_forward_hook(observe_output, prepend=True)


def remove_observer_hooks(module: nn.Module) -> None:
    """Take both hooks off a module; the user's stay."""
    for hooks, ours in ((module._forward_pre_hooks, observe_input), (module._forward_hooks, observe_output)):
        for key in [key for key, hook in hooks.items() if hook is ours]:
            del hooks[key]


def carry_pre_hooks(source: nn.Module, target: nn.Module) -> None:
    """Register the user's forward pre-hooks of one module on another, with their options."""
    for key, hook in source._forward_pre_hooks.items():
        if hook is not observe_input:
            target.register_forward_pre_hook(hook, with_kwargs=key in source._forward_pre_hooks_with_kwargs)


def carry_forward_hooks(source: nn.Module, target: nn.Module) -> None:
    """Register the user's forward hooks of one module on another, with their options."""
    for key, hook in source._forward_hooks.items():
        if hook is not observe_output:
            target.register_forward_hook(
                hook,
                with_kwargs=key in source._forward_hooks_with_kwargs,
                always_call=key in source._forward_hooks_always_called,
            )


def carry_hooks(source: nn.Module, target: nn.Module) -> None:
    """Both; nothing where the two are one module."""
    if source is not target:
        carry_pre_hooks(source, target)
        carry_forward_hooks(source, target)
