"""LSTM and multi-head attention on integers: what the observed modules of ``qfx.nn.quantizable`` become.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

import copy
from typing import Any

import torch
from torch import nn

from qfx.kernels.plain import put_together, take_apart
from qfx.nn import quantizable
from qfx.nn.errors import ModuleTypeError, UnsupportedError
from qfx.nn.quantized.functional_modules import FloatFunctional, QFunctional
from qfx.nn.quantized.linear import Linear
from qfx.nn.quantized.quantize import DeQuantize, Quantize
from qfx.nn.stubs import DeQuantStub, QuantStub
from qfx.nn.workflow import workflow


class _Converted(nn.Module):
    """Mixin before a quantizable class: the same structure with integer parts."""

    _FLOAT_MODULE: Any = None
    _SHORT = ""

    def _quantize_parts(self) -> None:
        """Put blank integer parts where the float ones are, for a state dict to fill."""
        for part in list(self.modules()):
            for name, child in part.named_children():
                if type(child) is nn.Linear:
                    part._modules[name] = Linear(child.in_features, child.out_features, child.bias is not None)
                elif type(child) is FloatFunctional:
                    part._modules[name] = QFunctional()
                elif type(child) is QuantStub:
                    part._modules[name] = Quantize(1.0, 0, torch.quint8)
                elif type(child) is DeQuantStub:
                    part._modules[name] = DeQuantize()

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    @classmethod
    def from_float(cls, *args: Any, **kwargs: Any) -> Any:
        """Not for use: prepare a float module with the quantizable class, and convert what it becomes."""
        raise UnsupportedError(
            f"It looks like you are trying to convert a non-observed {cls._SHORT} module. Prepare the float one with "
            f"qfx.nn.quantizable.{cls.__name__}.from_float, calibrate it, and use from_observed"
        )

    @classmethod
    def from_observed(cls, other: Any) -> Any:
        """Convert a calibrated module of ``qfx.nn.quantizable``, which is not changed.

        Raises:
            ModuleTypeError: another class.
            ConfigError: eager mode is not loaded.
        """
        if not isinstance(other, cls._FLOAT_MODULE):
            raise ModuleTypeError(
                f"quantized.{cls.__name__}.from_observed expects a quantizable.{cls._FLOAT_MODULE.__name__}, "
                f"got {type(other).__name__}"
            )
        made = workflow().convert(other)
        made.__class__ = cls
        return made


class LSTM(_Converted, quantizable.LSTM):
    """Quantized ``nn.LSTM``: its arguments; ``torch.quint8`` in and out, states too.

    A new module has zero weights and scales of 1.0, and waits for ``load_state_dict``; conversion makes one from an
    observed ``qfx.nn.quantizable.LSTM``, whose attributes it has.
    """

    _FLOAT_MODULE = quantizable.LSTM
    _SHORT = "LSTM"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quantize_parts()


class MultiheadAttention(_Converted, quantizable.MultiheadAttention):
    """Quantized ``nn.MultiheadAttention``: its arguments; ``torch.quint8`` in and out.

    A new module has zero weights and scales of 1.0, and waits for ``load_state_dict``; conversion makes one from an
    observed ``qfx.nn.quantizable.MultiheadAttention``, whose attributes it has.

    Attributes:
        bias_k, bias_v: quantized, or None. In the state dict too, where the original forgets them.
    """

    _FLOAT_MODULE = quantizable.MultiheadAttention
    _SHORT = "MHA"
    _BIASES = ("bias_k", "bias_v")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._quantize_parts()
        self._quantize_biases()

    def _quantize_biases(self) -> None:
        for name in self._BIASES:
            bias = getattr(self, name)
            if bias is not None:
                scale, zero_point = torch._choose_qparams_per_tensor(bias, reduce_range=False)
                del self._parameters[name]
                setattr(self, name, torch.quantize_per_tensor(bias.detach(), scale, zero_point, torch.quint8))
        for name in ("in_proj_weight", "in_proj_bias"):
            del self._parameters[name]  # the linear layers have them

    @classmethod
    def from_observed(cls, other: Any) -> Any:
        """Convert a calibrated ``qfx.nn.quantizable.MultiheadAttention``, which is not changed; see :class:`LSTM`."""
        if isinstance(other, cls._FLOAT_MODULE):
            # A product with a number keeps the scale of its input: its observer has seen nothing and must not be asked.
            other = copy.copy(other)
            other._modules = other._modules | {"q_scaling_product": QFunctional()}
        made = super().from_observed(other)
        made._quantize_biases()
        return made

    def _held(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in self._BIASES if getattr(self, name) is not None}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: bias for name, bias in self._held().items()})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self._held():
            setattr(self, name, state_dict.pop(prefix + name, getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __getstate__(self) -> dict[str, Any]:
        """The ``__dict__`` with plain tensors, so that copies need none of the deprecated dtypes."""
        return self.__dict__ | {name: take_apart(bias) for name, bias in self._held().items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the biases together again."""
        whole = {name: put_together(state[name]) for name in self._BIASES if state.get(name) is not None}
        super().__setstate__(state | whole)
