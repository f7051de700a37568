"""What ``qfx.nn`` refuses: each class is also the builtin that callers of ``torch.ao.nn`` used to catch."""

from __future__ import annotations

from qfx.errors import ConfigError, KernelError, ModelStateError


class InputError(KernelError, ValueError):
    """A quantized module or function was given an input, a device or sizes that its kernel does not take."""


class UnsupportedError(KernelError, NotImplementedError):
    """No kernel does this for quantized tensors."""


class ModuleTypeError(ConfigError):
    """``from_float``, ``from_reference`` or a fused container got a module of another kind, or one without
    observers."""


class WeightTypeError(ConfigError, RuntimeError):
    """Dynamic quantization was asked for a weight that is neither int8 nor float16, or that has no such kernel."""


class ModuleStateError(ModelStateError):
    """A module is in the wrong mode, on several devices or without what the step needs."""


class FusionError(ConfigError, NotImplementedError):
    """These modules have no fused form."""
