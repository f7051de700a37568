"""LSTM in parts that can be observed: linear layers, functional modules, activations.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

import numbers
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.nn.errors import ModuleTypeError, UnsupportedError
from qfx.nn.quantizable.cell import LSTMCell
from qfx.nn.quantized.module import cat, stack
from qfx.nn.workflow import workflow


class _LSTMSingleLayer(nn.Module):
    """One direction of one layer: a cell run over a sequence of (sequence, batch, features)."""

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
        self.cell = LSTMCell(input_dim, hidden_dim, bias, device, dtype, split_gates=split_gates)

    def forward(
        self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The hidden states of all steps, and the last pair of states."""
        result = []
        for i in range(x.shape[0]):
            hidden = self.cell(x[i], hidden)
            result.append(hidden[0])
        return torch.stack(result, 0), hidden

    @classmethod
    def from_params(cls, *args: Any, **kwargs: Any) -> Any:
        """Make it from weights; the arguments are those of :meth:`LSTMCell.from_params`."""
        cell = LSTMCell.from_params(*args, **kwargs)
        made = cls(cell.input_size, cell.hidden_size, cell.bias, split_gates=cell.split_gates)
        made.cell = cell
        return made


class _LSTMLayer(nn.Module):
    """One layer, in one or two directions."""

    __constants__ = ["batch_first", "bidirectional"]  # noqa: RUF012

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        split_gates: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.layer_fw = _LSTMSingleLayer(input_dim, hidden_dim, bias, device, dtype, split_gates=split_gates)
        if bidirectional:
            self.layer_bw = _LSTMSingleLayer(input_dim, hidden_dim, bias, device, dtype, split_gates=split_gates)

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output and last states; states are (batch, hidden), with two directions (2, batch, hidden)."""
        if self.batch_first:
            x = x.transpose(0, 1)
        if self.bidirectional:
            forward: tuple[Tensor, Tensor] | None = None
            backward: tuple[Tensor, Tensor] | None = None
            if hidden is not None:
                forward = (hidden[0][0], hidden[1][0])
                backward = (hidden[0][1], hidden[1][1])
            result, last = self.layer_fw(x, forward)
            reverse, first = self.layer_bw(x.flip(0), backward)
            result = cat([result, reverse.flip(0)], result.dim() - 1)
            last, first = torch.jit._unwrap_optional(last), torch.jit._unwrap_optional(first)  # type: ignore[attr-defined]
            states = (stack([last[0], first[0]]), stack([last[1], first[1]]))
        else:
            result, last = self.layer_fw(x, hidden)
            states = torch.jit._unwrap_optional(last)  # type: ignore[attr-defined]
        if self.batch_first:
            result = result.transpose(0, 1)
        return result, states

    @classmethod
    def from_float(cls, other: Any, layer_idx: int = 0, qconfig: Any = None, **kwargs: Any) -> Any:
        """Take layer ``layer_idx`` of an ``nn.LSTM``.

        Args:
            other: the float module.
            layer_idx: which of its layers.
            qconfig: used where ``other`` has none.
            kwargs: constructor arguments that shall differ from those of ``other``; ``split_gates``.

        Raises:
            ModuleTypeError: there is no ``qconfig``.
        """
        if not hasattr(other, "qconfig") and qconfig is None:
            raise ModuleTypeError(f"{cls.__name__}.from_float needs a qconfig, on the float module or as an argument")
        given = {
            name: kwargs.get(name, getattr(other, name))
            for name in ("input_size", "hidden_size", "bias", "batch_first", "bidirectional")
        }
        split_gates = kwargs.get("split_gates", False)
        made: Any = cls(*given.values(), split_gates=split_gates)
        made.qconfig = getattr(other, "qconfig", qconfig)
        for part, suffix in (("layer_fw", ""), ("layer_bw", "_reverse")):
            if hasattr(made, part):
                names = (f"{name}_l{layer_idx}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                parameters = [getattr(other, name, None) for name in names]
                setattr(made, part, _LSTMSingleLayer.from_params(*parameters, split_gates=split_gates))
        return made


class LSTM(nn.Module):
    """``nn.LSTM`` taken apart, so that every product, sum and gate has a place for its observer.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional: as ``nn.LSTM`` has them.
        dropout: accepted and ignored, with a warning.
        device, dtype: of the parameters.
        split_gates: a linear layer for each gate, instead of one for all whose result is cut into four. Each gate then
            has an observer of its own.

    A new module is not training.

    Attributes:
        layers: one for each layer, with ``layer_fw`` (and ``layer_bw``) that have a ``cell``, see :class:`LSTMCell`.

    Raises:
        ConfigError: ``dropout`` is no probability.

    Example:
        >>> output, (h, c) = LSTM(10, 20, 2)(torch.zeros(5, 3, 10))
        >>> output.shape, h.shape
        (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    _FLOAT_MODULE: Any = nn.LSTM
    __constants__ = ["batch_first"]  # noqa: RUF012

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        split_gates: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Number) or not 0 <= dropout <= 1:
            raise ConfigError(
                f"dropout should be a number in range [0, 1], the probability of an element being zeroed; got {dropout}"
            )
        if dropout > 0:
            warn(
                "dropout option for quantizable LSTM is ignored. Train an nn.LSTM with dropout and prepare it "
                "afterwards",
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = float(dropout)
        self.training = False
        deep = hidden_size * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            _LSTMLayer(size, hidden_size, bias, False, bidirectional, device, dtype, split_gates=split_gates)
            for size in (input_size, *[deep] * (num_layers - 1))
        )

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run a sequence of (sequence, batch, features), or (batch, sequence, features) with ``batch_first``.

        Args:
            x: float or quantized.
            hidden: initial hidden and cell states, each (layers * directions, batch, hidden); or, in Python, a list
                of such pairs, one for each layer. Zeros by default.

        Returns:
            The output, and the pair of final states.
        """
        if self.batch_first:
            x = x.transpose(0, 1)
        directions = 2 if self.bidirectional else 1
        batch = x.size(1)
        if hidden is None:
            zeros = torch.zeros(directions, batch, self.hidden_size, dtype=torch.float, device=x.device).squeeze(0)
            if x.is_quantized:
                zeros = torch.quantize_per_tensor(zeros, 1.0, 0, x.dtype)
            states = [(zeros, zeros) for _ in range(self.num_layers)]
        else:
            given = torch.jit._unwrap_optional(hidden)  # type: ignore[attr-defined]
            if isinstance(given[0], Tensor):
                shape = [self.num_layers, directions, batch, self.hidden_size]
                h, c = given[0].reshape(shape), given[1].reshape(shape)
                states = [(h[i].squeeze(0), c[i].squeeze(0)) for i in range(self.num_layers)]
            else:
                states = given
        hs = []
        cs = []
        for i, layer in enumerate(self.layers):
            x, (h_last, c_last) = layer(x, states[i])
            hs.append(h_last)
            cs.append(c_last)
        h_all, c_all = stack(hs), stack(cs)
        # A layer with two directions has a dimension for them.
        h_all = h_all.reshape(-1, h_all.shape[-2], h_all.shape[-1])
        c_all = c_all.reshape(-1, c_all.shape[-2], c_all.shape[-1])
        if self.batch_first:
            x = x.transpose(0, 1)
        return x, (h_all, c_all)

    def _get_name(self) -> str:
        return "QuantizableLSTM"

    @classmethod
    def from_float(cls, other: Any, qconfig: Any = None, split_gates: bool = False) -> Any:
        """Take a float module apart and prepare it: for training if it is training, else for calibration.

        Args:
            other: an ``nn.LSTM`` with a ``qconfig``. Its weights are shared, not copied.
            qconfig: used where ``other`` has none.
            split_gates: a linear layer for each gate.

        Raises:
            ModuleTypeError: another class, no ``qconfig``, or a projection (``proj_size``).
            ConfigError: eager mode is not loaded.
        """
        if not isinstance(other, cls._FLOAT_MODULE):
            raise ModuleTypeError(
                f"{cls.__name__}.from_float expects a {cls._FLOAT_MODULE.__name__}, got {type(other).__name__}"
            )
        if not hasattr(other, "qconfig") and not qconfig:
            raise ModuleTypeError(f"{cls.__name__}.from_float needs a qconfig, on the float module or as an argument")
        if other.proj_size:
            raise ModuleTypeError(f"{cls.__name__} has no projection (proj_size={other.proj_size}); leave it float")
        made: Any = cls(
            other.input_size, other.hidden_size, other.num_layers, other.bias, other.batch_first, other.dropout,
            other.bidirectional, split_gates=split_gates,
        )  # fmt: skip
        made.qconfig = getattr(other, "qconfig", qconfig)
        for i in range(other.num_layers):
            made.layers[i] = _LSTMLayer.from_float(other, i, qconfig, batch_first=False, split_gates=split_gates)
        if other.training:
            return workflow().prepare_qat(made.train())
        return workflow().prepare(made.eval())

    @classmethod
    def from_observed(cls, other: Any) -> Any:
        """Not for use: ``qfx.nn.quantized.LSTM`` is made from an observed module."""
        raise UnsupportedError(
            f"{cls.__name__} is an observed module already; convert it with qfx.nn.quantized.LSTM.from_observed"
        )
