"""What modules for quantization-aware training share: a float module whose weight is rounded in every forward.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from qfx.errors import ConfigError
from qfx.nn.errors import ModuleTypeError
from qfx.nn.intrinsic import _FusedModule


class QATModule(nn.Module):
    """Mixin before a float class: owns ``weight_fake_quant``, made by ``qconfig.weight()``.

    A subclass names what it replaces in ``_FLOAT_MODULE``, and where that is a fused container the class of the part
    with the weight in ``_FLOAT_WEIGHTED``; it computes with ``self.weight_fake_quant(self.weight)``.
    """

    _FLOAT_MODULE: Any = None
    _FLOAT_WEIGHTED: Any = None

    weight: torch.Tensor

    def _take_qconfig(self, qconfig: Any, device: Any = None) -> None:
        """Own the configuration and the fake-quantize module of the weight.

        Raises:
            ConfigError: there is no configuration.
        """
        if not qconfig:
            raise ConfigError(
                f"qconfig must be provided for QAT module {type(self).__name__}; see get_default_qat_qconfig"
            )
        self.qconfig = qconfig
        made = qconfig.weight()
        self.weight_fake_quant = made if device is None else made.to(device)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Make it from a float module with a ``qconfig``; weight and bias are the float module's own.

        Args:
            mod: a module of the class this one replaces.
            use_precomputed_fake_quant: accepted for the original's sake.

        Raises:
            ModuleTypeError: another class, or no ``qconfig``.
        """
        qconfig, kind = getattr(mod, "qconfig", None), parametrize.type_before_parametrizations(mod)
        if kind is not cls._FLOAT_MODULE:
            raise ModuleTypeError(
                f"qat.{cls.__name__}.from_float only works for {cls._FLOAT_MODULE.__name__}, got {kind.__name__}"
            )
        if isinstance(mod, _FusedModule):
            mod = mod[0]
            qconfig = qconfig or getattr(mod, "qconfig", None)
        check_qconfig(cls, mod, qconfig)
        made = like(cls, mod)
        made._parameters.update({name: mod._parameters.get(name) for name in ("weight", "bias") if hasattr(mod, name)})
        if parametrize.is_parametrized(mod, "weight"):
            made._parameters["weight"] = nn.Parameter(mod.weight.detach().clone())
            parametrize.transfer_parametrizations_and_params(mod, made, "weight")
        made._take_qconfig(qconfig, mod.weight.device)
        return made

    def to_float(self) -> Any:
        """The float module with this one's weight and bias (same storage) and mode, without gradients so far."""
        made = like(self._FLOAT_WEIGHTED or self._FLOAT_MODULE, self)
        for name in ("weight", "bias"):
            if hasattr(self, name):
                parameter = getattr(self, name)
                made._parameters[name] = None if parameter is None else nn.Parameter(parameter.detach())
        return made


def check_qconfig(cls: type, mod: nn.Module, qconfig: Any) -> None:
    """Raise ModuleTypeError where a float module has no configuration for the class that is to replace it."""
    if not qconfig:
        what = "a valid qconfig" if hasattr(mod, "qconfig") else "qconfig defined"
        raise ModuleTypeError(f"qat.{cls.__name__}.from_float: Input float module must have {what}; set one first")


_OWN = ("qconfig", "weight_fake_quant")


def like(cls: Any, module: nn.Module) -> Any:
    """A module of ``cls`` with the plain attributes and the mode of another; no parameters, no submodules.

    The constructor is not called: it would draw random weights only for them to be replaced.
    """
    made = cls.__new__(cls)
    nn.Module.__init__(made)
    own = made.__dict__
    own.update({name: value for name, value in module.__dict__.items() if name not in own and name not in _OWN})
    own["training"] = module.training
    return made
