"""One step of an LSTM in parts that can be observed.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn

from qfx.nn.errors import ModuleTypeError
from qfx.nn.quantized.functional_modules import FloatFunctional

_GATES = ("input", "forget", "cell", "output")


class LSTMCell(nn.Module):
    """``nn.LSTMCell`` taken apart, so that every product, sum and gate has a place for its observer.

    Args:
        input_dim, hidden_dim: features of an input and of the hidden state.
        bias: whether the linear layers have biases.
        device, dtype: of the parameters.
        split_gates: a linear layer for each gate, instead of one for all whose result is cut into four.

    Attributes:
        igates, hgates: linear layers of input and hidden state; dicts of four with ``split_gates``.
        gates: adds their results; a dict of four with ``split_gates``.
        input_gate, forget_gate, cell_gate, output_gate: activations.
        initial_hidden_state_qparams, initial_cell_state_qparams: scale and zero point of the zeros a quantized cell
            starts with; (1.0, 0).
        hidden_state_dtype, cell_state_dtype: their dtype; ``torch.quint8``.

    Example:
        >>> h, c = LSTMCell(10, 20)(torch.zeros(3, 10))
        >>> h.shape, c.shape
        (torch.Size([3, 20]), torch.Size([3, 20]))
    """

    _FLOAT_MODULE: Any = nn.LSTMCell
    __constants__ = ["split_gates"]  # noqa: RUF012

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        split_gates: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias, self.split_gates = input_dim, hidden_dim, bias, split_gates

        def linear(size: int, gates: int) -> nn.Linear:
            return nn.Linear(size, gates * hidden_dim, bias, device, dtype)

        if split_gates:
            self.igates: Any = nn.ModuleDict({gate: linear(input_dim, 1) for gate in _GATES})
            self.hgates: Any = nn.ModuleDict({gate: linear(hidden_dim, 1) for gate in _GATES})
            self.gates: Any = nn.ModuleDict({gate: FloatFunctional() for gate in _GATES})
        else:
            self.igates, self.hgates, self.gates = linear(input_dim, 4), linear(hidden_dim, 4), FloatFunctional()
        self.input_gate, self.forget_gate = nn.Sigmoid(), nn.Sigmoid()
        self.cell_gate, self.output_gate = nn.Tanh(), nn.Sigmoid()
        self.fgate_cx, self.igate_cgate = FloatFunctional(), FloatFunctional()
        self.fgate_cx_igate_cgate, self.ogate_cy = FloatFunctional(), FloatFunctional()
        self.initial_hidden_state_qparams: tuple[float, int] = (1.0, 0)
        self.initial_cell_state_qparams: tuple[float, int] = (1.0, 0)
        self.hidden_state_dtype: torch.dtype = torch.quint8
        self.cell_state_dtype: torch.dtype = torch.quint8

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step of (batch, input); ``hidden`` is the pair of hidden and cell state, zeros by default."""
        if hidden is None or hidden[0] is None or hidden[1] is None:
            hidden = self.initialize_hidden(x.shape[0], x.is_quantized)
        hx, cx = hidden
        sums = self._sums(x, hx)
        keep = self.fgate_cx.mul(self.forget_gate(sums[1]), cx)
        add = self.igate_cgate.mul(self.input_gate(sums[0]), self.cell_gate(sums[2]))
        cy = self.fgate_cx_igate_cgate.add(keep, add)
        hy = self.ogate_cy.mul(self.output_gate(sums[3]), torch.tanh(cy))
        return hy, cy

    def _sums(self, x: Tensor, hx: Tensor) -> list[Tensor]:
        """What the four gates are applied to, in the order of the float module's weights."""
        if self.split_gates:
            sums = []
            for igate, hgate, gate in zip(self.igates.values(), self.hgates.values(), self.gates.values()):  # noqa: B905  scripts know no strict
                sums.append(gate.add(igate(x), hgate(hx)))
            return sums
        return self.gates.add(self.igates(x), self.hgates(hx)).chunk(4, 1)  # type: ignore[no-any-return]

    def initialize_hidden(self, batch_size: int, is_quantized: bool = False) -> tuple[Tensor, Tensor]:
        """Hidden and cell state of zeros, (batch, hidden)."""
        h, c = torch.zeros((batch_size, self.hidden_size)), torch.zeros((batch_size, self.hidden_size))
        if is_quantized:
            h_scale, h_zero_point = self.initial_hidden_state_qparams
            c_scale, c_zero_point = self.initial_cell_state_qparams
            h = torch.quantize_per_tensor(h, h_scale, h_zero_point, self.hidden_state_dtype)
            c = torch.quantize_per_tensor(c, c_scale, c_zero_point, self.cell_state_dtype)
        return h, c

    def _get_name(self) -> str:
        return "QuantizableLSTMCell"

    @classmethod
    def from_params(
        cls, wi: Tensor, wh: Tensor, bi: Tensor | None = None, bh: Tensor | None = None, split_gates: bool = False
    ) -> Any:
        """Make it from the weights and biases of input and hidden state, all four gates in each; they are shared.

        Raises:
            ModuleTypeError: one bias without the other.
        """
        if (bi is None) != (bh is None):
            raise ModuleTypeError("an LSTM cell has two biases or none: give both bi and bh, or neither")
        made: Any = cls(wi.shape[1], wh.shape[1], bi is not None, split_gates=split_gates)
        for weight, bias, gates in ((wi, bi, made.igates), (wh, bh, made.hgates)):
            parts = gates.values() if split_gates else [gates]
            for part, piece in zip(parts, weight.chunk(len(parts)), strict=True):
                part.weight = nn.Parameter(piece)
            if bias is not None:
                for part, piece in zip(parts, bias.chunk(len(parts)), strict=True):
                    part.bias = nn.Parameter(piece)
        return made

    @classmethod
    def from_float(cls, other: Any, use_precomputed_fake_quant: bool = False, split_gates: bool = False) -> Any:
        """Take a float cell apart.

        Args:
            other: an ``nn.LSTMCell`` with a ``qconfig``. Its weights are shared, not copied.
            use_precomputed_fake_quant: accepted for the original's sake.
            split_gates: a linear layer for each gate.

        Raises:
            ModuleTypeError: another class, or no ``qconfig``.
        """
        if type(other) is not cls._FLOAT_MODULE:
            raise ModuleTypeError(
                f"{cls.__name__}.from_float expects a {cls._FLOAT_MODULE.__name__}, got {type(other).__name__}"
            )
        if not hasattr(other, "qconfig"):
            raise ModuleTypeError(f"{cls.__name__}.from_float got a cell without a qconfig; set one first")
        made = cls.from_params(other.weight_ih, other.weight_hh, other.bias_ih, other.bias_hh, split_gates)
        made.qconfig = other.qconfig
        for gates in (made.igates, made.hgates):
            for part in (gates, *gates.children()):
                part.qconfig = other.qconfig
        return made
