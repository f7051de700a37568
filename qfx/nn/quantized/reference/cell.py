"""Reference cells: the float kernels on weights that went through their integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.nn.errors import InputError
from qfx.nn.quantized.reference.weight import float_weight
from qfx.nn.quantized.reference.weights import ReferenceWeights, get_quantized_weight


class RNNCellBase(ReferenceWeights, nn.RNNCellBase):
    """What the three cells share: the arguments of ``nn.RNNCellBase``, then ``weight_qparams_dict`` (see
    :class:`ReferenceWeights`) with ``weight_ih`` and ``weight_hh``."""

    _KERNEL: Any = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
        weight_qparams_dict: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks, device=device, dtype=dtype)
        self._init_weight_qparams_dict(weight_qparams_dict, device)

    def _weight_names(self) -> list[str]:
        return ["weight_ih", "weight_hh"]

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}(Reference)"

    def get_quantized_weight_ih(self) -> Tensor | None:
        """The weight of the input as integers."""
        return get_quantized_weight(self, "weight_ih")

    def get_quantized_weight_hh(self) -> Tensor | None:
        """The weight of the hidden state as integers."""
        return get_quantized_weight(self, "weight_hh")

    def get_weight_ih(self) -> Tensor:
        """The weight of the input after a round trip through its integers."""
        return self._through(float_weight, "weight_ih")

    def get_weight_hh(self) -> Tensor:
        """The weight of the hidden state after a round trip through its integers."""
        return self._through(float_weight, "weight_hh")

    def _kernel(self) -> Any:
        return self._KERNEL

    def _step(self, input: Tensor, states: tuple[Tensor, ...] | None, count: int) -> tuple[Tensor, ...]:
        """One step of a batch or of a single input; an fx proxy, whose rank nobody knows yet, is a batch."""
        batched = not isinstance(input, Tensor) or input.dim() == 2
        if not batched and input.dim() != 1:
            raise InputError(
                f"{type(self).__name__}: Expected input to be 1-D or 2-D but received {input.dim()}-D tensor"
            )
        if not batched:
            input = input.unsqueeze(0)
            states = None if states is None else tuple(state.unsqueeze(0) for state in states)
        if states is None:
            # A method of the input, which fx can trace.
            states = (input.new_zeros([input.size(0), self.hidden_size]),) * count
        result = self._kernel()(
            input, states if count > 1 else states[0], self.get_weight_ih(), self.get_weight_hh(), self.bias_ih,
            self.bias_hh,
        )  # fmt: skip
        found = (result,) if count == 1 else (result[0], result[1])
        return found if batched else tuple(state.squeeze(0) for state in found)

    @classmethod
    def from_float(cls, mod: Any, weight_qparams_dict: dict[str, Any], use_precomputed_fake_quant: bool = False) -> Any:
        """Make it from a float cell and the qparams of its weights; parameters are shared, not copied."""
        own = {"nonlinearity": mod.nonlinearity} if hasattr(mod, "nonlinearity") else {}
        made: Any = cls(
            mod.input_size, mod.hidden_size, mod.bias, device=mod.weight_ih.device, dtype=mod.weight_ih.dtype,
            weight_qparams_dict=weight_qparams_dict, **own,
        )  # fmt: skip
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(made, name, getattr(mod, name))
        return made.train(mod.training)


class RNNCell(RNNCellBase):
    """Reference ``nn.RNNCell``: its arguments, then ``weight_qparams_dict`` (see :class:`RNNCellBase`)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        weight_qparams_dict: dict[str, Any] | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"Unknown nonlinearity: {nonlinearity}; use tanh or relu")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype, weight_qparams_dict)
        self.nonlinearity = nonlinearity

    def _kernel(self) -> Any:
        return torch.rnn_tanh_cell if self.nonlinearity == "tanh" else torch.rnn_relu_cell

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step of (batch, input) or (input,); ``hx`` is the hidden state, zeros by default."""
        return self._step(input, None if hx is None else (hx,), 1)[0]


class GRUCell(RNNCellBase):
    """Reference ``nn.GRUCell``: its arguments, then ``weight_qparams_dict`` (see :class:`RNNCellBase`)."""

    _KERNEL = staticmethod(torch.gru_cell)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        weight_qparams_dict: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype, weight_qparams_dict)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step of (batch, input) or (input,); ``hx`` is the hidden state, zeros by default."""
        return self._step(input, None if hx is None else (hx,), 1)[0]


class LSTMCell(RNNCellBase):
    """Reference ``nn.LSTMCell``: its arguments, then ``weight_qparams_dict`` (see :class:`RNNCellBase`)."""

    _KERNEL = staticmethod(torch.lstm_cell)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        weight_qparams_dict: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype, weight_qparams_dict)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step of (batch, input) or (input,); ``hx`` is the pair of hidden and cell state, zeros by default."""
        h, c = self._step(input, hx, 2)
        return h, c
