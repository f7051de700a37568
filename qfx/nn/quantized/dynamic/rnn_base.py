"""What dynamically quantized LSTM and GRU share: parameters, checks, states and conversion.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

import numbers
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.nn.errors import InputError, ModuleTypeError
from qfx.nn.quantized.dynamic.packed import PackedParameter
from qfx.nn.quantized.module import blank_weight, empty, made_empty, refuse
from qfx.nn.weights import DynamicWeights

_GATES = {"LSTM": 4, "GRU": 3}


class RNNBase(nn.Module):
    """What :class:`LSTM` and :class:`GRU` share.

    Args:
        mode: ``"LSTM"`` or ``"GRU"``.
        input_size, hidden_size: features of an input and of the hidden state.
        num_layers: layers stacked on one another.
        bias: the kernels have no layer without one and raise when called; accepted as in ``nn.LSTM``.
        batch_first: whether inputs and outputs are (batch, sequence, features); (sequence, batch, features) if not.
            The hidden state is (layers * directions, batch, hidden) either way.
        dropout: probability of a dropout after each layer but the last, while training.
        bidirectional: whether a second cell in each layer runs backwards.
        dtype: of the weights, ``torch.qint8`` or ``torch.float16``.
        engine: who packs; None for the engine selected in torch whenever weights are set.

    A new module has zero weights and is not training.

    Attributes:
        version: that of the state the weights came from; before version 2 inputs had 8 bits.

    Raises:
        ConfigError: another mode, or a dropout that is no probability.
        WeightTypeError: another dtype.
    """

    _FLOAT_MODULE: Any = nn.RNNBase
    _version = 2
    __constants__ = ["mode"]  # noqa: RUF012
    __jit_unused_properties__ = ["engine"]  # noqa: RUF012

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
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__()
        if mode not in _GATES:
            raise ConfigError(f"Unrecognized RNN mode: {mode}; use LSTM or GRU")
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Number) or not 0 <= dropout <= 1:
            raise ConfigError(
                f"dropout should be a number in range [0, 1], the probability of an element being zeroed; got {dropout}"
            )
        if dropout > 0 and num_layers == 1:
            warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            )
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.dtype = bidirectional, dtype
        self.version: int | None = 2
        self.training = False
        self._engine_given = engine
        if made_empty():
            return
        blank = blank_weight if dtype == torch.qint8 else torch.zeros
        gates = _GATES[mode] * hidden_size
        flat = {}
        for name in self._weight_names():
            size = hidden_size
            if "_ih_" in name:
                size = input_size if name.split("_")[2] == "l0" else hidden_size * (2 if bidirectional else 1)
            flat[name], flat[name.replace("weight", "bias")] = blank(gates, size), torch.zeros(gates)
        self._pack(flat, dtype)

    def _weight_names(self) -> list[str]:
        """The names ``nn.LSTM`` has for its weights, two for each layer and direction."""
        return [
            f"weight_{which}_l{layer}{direction}"
            for layer in range(self.num_layers)
            for direction in (("", "_reverse") if self.bidirectional else ("",))
            for which in ("ih", "hh")
        ]

    def _pack(self, flat: dict[str, Any], dtype: torch.dtype) -> None:
        names, made = self._weight_names(), []
        for pair in zip(names[::2], names[1::2], strict=True):
            missing = [n for name in pair for n in (name, name.replace("weight", "bias")) if flat.get(n) is None]
            if missing:
                raise InputError(
                    f"{self._get_name()} needs {', '.join(missing)}; the kernels have no cell without bias"
                )
            weights, biases = zip(*((flat[name], flat[name.replace("weight", "bias")]) for name in pair), strict=True)
            seven_bits = self.version is not None and self.version >= 2
            made.append(PackedParameter._of(weights, biases, dtype, seven_bits, self._engine_given))
        self._all_weight_values = nn.ModuleList(made)

    @property
    def engine(self) -> str:
        """The engine the weights are packed by."""
        return self._all_weight_values[0].engine  # type: ignore[return-value]

    def _get_name(self) -> str:
        return "DynamicQuantizedRNN"

    def extra_repr(self) -> str:
        """Sizes, and what is not at its default."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text

    def __repr__(self) -> str:
        return f"{self._get_name()}({self.extra_repr()})"

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Refuse an input of another rank or number of features."""
        rank = 2 if batch_sizes is not None else 3
        if input.dim() != rank:
            refuse(f"input must have {rank} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            refuse(f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}")

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """(layers * directions, batch, hidden)."""
        batch = self._batch(input) if batch_sizes is None else int(batch_sizes[0])
        return (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)

    def check_hidden_size(
        self, hx: Tensor, expected_hidden_size: tuple[int, int, int], msg: str = "Expected hidden size {}, got {}"
    ) -> None:
        """Refuse a hidden state of another size."""
        if hx.size() != expected_hidden_size:
            refuse(msg.format(expected_hidden_size, list(hx.size())))

    def permute_hidden(self, hx: Tensor, permutation: Tensor | None) -> Tensor:
        """Reorder the batch of a hidden state."""
        return hx if permutation is None else hx.index_select(1, permutation)

    def _zeros(self, input: Tensor, batch: int) -> Tensor:
        # A method of the input, which fx can trace.
        return input.new_zeros([self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size])

    def _batch(self, input: Tensor) -> int:
        return input.size(0) if self.batch_first else input.size(1)

    def _run(self, input: Tensor, hx: list[Tensor], batch_sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Output and final states (the cell state for GRU is its hidden state once more)."""
        params = [m.param for m in self._all_weight_values]
        if self.mode == "GRU":
            if batch_sizes is None:
                result = torch.quantized_gru(
                    input, hx[0], params, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
                    self.batch_first,
                )  # fmt: skip
            else:
                result = torch.quantized_gru(
                    input, batch_sizes, hx[0], params, self.bias, self.num_layers, self.dropout, self.training,
                    self.bidirectional,
                )  # fmt: skip
            return result[0], result[1], result[1]
        if batch_sizes is None:
            states = torch.quantized_lstm(
                input, hx, params, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
                self.batch_first, dtype=self.dtype, use_dynamic=True,
            )  # fmt: skip
        else:
            states = torch.quantized_lstm(
                input, batch_sizes, hx, params, self.bias, self.num_layers, self.dropout, self.training,
                self.bidirectional, dtype=self.dtype, use_dynamic=True,
            )  # fmt: skip
        return states[0], states[1], states[2]

    def _weight_bias(self) -> dict[str, dict[str, Any]]:
        weights: dict[str, Any] = {}
        biases: dict[str, Any] = {}
        names = self._weight_names()
        for cell, ih, hh in zip(self._all_weight_values, names[::2], names[1::2], strict=True):
            weights[ih], weights[hh] = cell._weight_ih, cell._weight_hh
            biases[ih.replace("weight", "bias")], biases[hh.replace("weight", "bias")] = cell.bias_ih, cell.bias_hh
        return {"weight": weights, "bias": biases}

    def get_weight(self) -> dict[str, Tensor]:
        """The weights by the names ``nn.LSTM`` has for them: int8, or floats for ``torch.float16``."""
        return self._weight_bias()["weight"]

    def get_bias(self) -> dict[str, Tensor]:
        """The float biases by the names ``nn.LSTM`` has for them."""
        return self._weight_bias()["bias"]

    def set_weight_bias(self, weight_bias_dict: dict[str, Any]) -> None:
        """Replace all weights (int8 or float) and biases, by the names ``nn.LSTM`` has for them, and pack them.

        Raises:
            InputError: one is missing.
        """
        quantized = weight_bias_dict[self._weight_names()[0]].dtype == torch.qint8
        self._pack(weight_bias_dict, torch.qint8 if quantized else torch.float16)

    # State dict: _all_weight_values.N.param, see PackedParameter; version 2 says that inputs have 7 bits.

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        self.version = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False, *, engine: str | None = None) -> Any:
        """Quantize the weights of a float module.

        Args:
            mod: an ``nn.LSTM`` or ``nn.GRU`` with a ``qconfig``, whose weight observer says how; None for int8 per
                tensor. It is not changed.
            use_precomputed_fake_quant: accepted for the original's sake; the weights are always looked at.
            engine: who packs the weights; None for the engine selected in torch.

        Raises:
            ModuleTypeError: another class, no qconfig, no biases, or a projection (``proj_size``).
            WeightTypeError: the weight observer is neither one of int8 nor of float16.
        """
        accepted = (nn.LSTM, nn.GRU) if cls is RNNBase else (cls._FLOAT_MODULE,)
        weights = DynamicWeights(cls, mod, accepted)
        if not mod.bias or mod.proj_size:
            what = "without biases" if not mod.bias else f"with proj_size={mod.proj_size}"
            raise ModuleTypeError(f"{cls.__name__}.from_float: no kernel runs an {mod.mode} {what}; leave it float")
        flat = {name: getattr(mod, name) for name in mod._flat_weights_names}
        flat = {name: weights.quantize(value) if "weight" in name else value for name, value in flat.items()}
        return cls._of(mod, flat, weights.dtype, engine)

    @classmethod
    def from_reference(cls, ref_mod: Any, *, engine: str | None = None) -> Any:
        """Pack the weights of a reference module."""
        if not hasattr(ref_mod, "weight_ih_l0_dtype"):
            raise ModuleTypeError(
                f"{cls.__name__}.from_reference needs a reference module, not {type(ref_mod).__name__}"
            )
        return cls._of(ref_mod, ref_mod.get_quantized_weight_bias_dict(), ref_mod.weight_ih_l0_dtype, engine)

    @classmethod
    def _of(cls, mod: Any, flat: dict[str, Any], dtype: torch.dtype, engine: str | None) -> Any:
        kind: Any = cls
        if cls is RNNBase:
            kind = next(one for one in RNNBase.__subclasses__() if one._FLOAT_MODULE.__name__ == mod.mode)
        with empty():
            made = kind(
                mod.input_size, mod.hidden_size, mod.num_layers, mod.bias, mod.batch_first, mod.dropout,
                mod.bidirectional, dtype, engine=engine,
            )  # fmt: skip
        made._pack(flat, dtype)
        return made
