"""Reference LSTM and GRU: the float kernels on weights that went through their integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from qfx.errors import ConfigError
from qfx.nn.quantized.reference.weight import float_weight
from qfx.nn.quantized.reference.weights import ReferenceWeights, get_quantized_weight


class RNNBase(ReferenceWeights, nn.RNNBase):
    """What :class:`LSTM` and :class:`GRU` share: the arguments of ``nn.RNNBase``, then ``weight_qparams_dict`` (see
    :class:`ReferenceWeights`), whose names are ``weight_ih_l0``, ``weight_hh_l0`` ..."""

    _KERNEL: Any = None

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        weight_qparams_dict: dict[str, Any] | None = None,
    ) -> None:
        nn.RNNBase.__init__(
            self, mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype,
        )  # fmt: skip
        self._init_weight_qparams_dict(weight_qparams_dict, device)

    def _weight_names(self) -> list[str]:
        return [name for name in self._flat_weights_names if name.startswith("weight")]

    # What the float class hands to its kernel. Never stored: it is made anew of the parameters in every call.

    @property
    def _flat_weights(self) -> list[Any]:
        return self.get_flat_weights() if "is_decomposed" in self.__dict__ else [None] * len(self._flat_weights_names)

    @_flat_weights.setter
    def _flat_weights(self, value: list[Any]) -> None:
        """Drop what the float class would keep."""

    def _update_flat_weights(self) -> None:
        """Do nothing: nothing is kept that could be out of date."""

    def flatten_parameters(self) -> None:
        """Do nothing: the kernel gets other tensors than the parameters."""

    def get_flat_weights(self) -> list[Tensor | None]:
        """The weights after a round trip through their integers, and the biases, in the kernel's order."""
        return [
            None
            if not hasattr(self, name)
            else self._through(float_weight, name)
            if name.startswith("weight")
            else getattr(self, name)
            for name in self._flat_weights_names
        ]

    def get_quantized_weight_bias_dict(self) -> dict[str, Tensor | None]:
        """By name: each weight as integers, each bias as it is."""
        return {
            name: get_quantized_weight(self, name) if name.startswith("weight") else getattr(self, name, None)
            for name in self._flat_weights_names
        }

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run a sequence as the float module does."""
        if isinstance(input, (Tensor, PackedSequence)):
            return super().forward(input, hx)
        return self._traced(input, hx)

    def _traced(self, input: Any, hx: Any) -> Any:
        """The forward for an fx proxy, whose rank nobody knows yet: batches of sequences are taken for granted."""
        lstm = self.mode == "LSTM"
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            batch = input.size(0 if self.batch_first else 1)
            hx = input.new_zeros([count, batch, self.proj_size or self.hidden_size])
            hx = (hx, input.new_zeros([count, batch, self.hidden_size])) if lstm else hx
        result = self._KERNEL(
            input, hx, self.get_flat_weights(), self.bias, self.num_layers, self.dropout, self.training,
            self.bidirectional, self.batch_first,
        )  # fmt: skip
        return (result[0], (result[1], result[2])) if lstm else (result[0], result[1])

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}(Reference)"

    @classmethod
    def from_float(cls, mod: Any, weight_qparams_dict: dict[str, Any]) -> Any:
        """Make it from a float module and the qparams of its weights; parameters are shared, not copied."""
        projection = {"proj_size": mod.proj_size} if mod.proj_size else {}
        made: Any = cls(
            mod.input_size, mod.hidden_size, mod.num_layers, mod.bias, mod.batch_first, mod.dropout,
            mod.bidirectional, weight_qparams_dict=weight_qparams_dict, **projection,
        )  # fmt: skip
        for name in mod._flat_weights_names:
            setattr(made, name, getattr(mod, name))
        return made.train(mod.training)


class LSTM(RNNBase, nn.LSTM):
    """Reference ``nn.LSTM``: its arguments, then ``weight_qparams_dict`` (see :class:`RNNBase`)."""

    _KERNEL = staticmethod(torch.lstm)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase, nn.GRU):
    """Reference ``nn.GRU``: its arguments, then ``weight_qparams_dict`` (see :class:`RNNBase`)."""

    _KERNEL = staticmethod(torch.gru)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ConfigError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)
