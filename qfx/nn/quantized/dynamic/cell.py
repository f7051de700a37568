"""Dynamically quantized cells: one step of a recurrent network.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn

from qfx import layout
from qfx.errors import ConfigError
from qfx.nn.errors import ModuleTypeError
from qfx.nn.quantized.dynamic.packed import PackedPair
from qfx.nn.quantized.module import empty, refuse, unpack_one
from qfx.nn.quantized.saved import Loading, Saved
from qfx.nn.weights import DynamicWeights

_ops = torch.ops.quantized


class RNNCellBase(PackedPair, Saved):
    """What the three cells share.

    Args:
        input_size, hidden_size: features of an input and of the hidden state.
        bias: whether there are (float) biases.
        num_chunks: gates, each a block of rows of the weights.
        dtype: of the weights, ``torch.qint8`` or ``torch.float16``.
        engine: who packs; None for the engine selected in torch whenever weights are set.

    A new cell has zero weights.

    Attributes:
        bias_ih, bias_hh: the biases, or None.

    Raises:
        WeightTypeError: another dtype.
    """

    __constants__ = [  # noqa: RUF012
        "input_size", "hidden_size", "bias", "weight_dtype", "engine", "_engine_given",
    ]  # fmt: skip
    _CACHES = ("_packed_weight_ih", "_packed_weight_hh", "_op")
    _FLOAT_MODULE: Any = None
    _OP: Any = None
    # Said again: TorchScript reads the annotations of one class.
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        num_chunks: int = 4,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._choose_engine(engine)
        self._choose_dtype(dtype)
        self._hold_blank(num_chunks * hidden_size, (input_size, hidden_size), bias)

    def _repack(self) -> None:
        self._packed_weight_ih, self._packed_weight_hh = self._pack_both()
        self._op = self._operator()

    def _operator(self) -> Any:
        # On the instance, not the class: TorchScript finds operators only there.
        return self._OP

    def _script_repack(self) -> None:
        if self.weight_dtype == torch.qint8:
            self._packed_weight_ih = torch.ops.quantized.linear_prepack(self._weight_ih, self.bias_ih)
            self._packed_weight_hh = torch.ops.quantized.linear_prepack(self._weight_hh, self.bias_hh)
        else:
            self._packed_weight_ih = torch.ops.quantized.linear_prepack_fp16(self._weight_ih, self.bias_ih)
            self._packed_weight_hh = torch.ops.quantized.linear_prepack_fp16(self._weight_hh, self.bias_hh)

    def _get_name(self) -> str:
        return f"DynamicQuantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Sizes, and what is not at its default."""
        text = f"{self.input_size}, {self.hidden_size}"
        text += "" if self.bias else f", bias={self.bias}"
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"

    def check_forward_input(self, input: Tensor) -> None:
        """Refuse an input of another number of features."""
        if input.size(1) != self.input_size:
            refuse(f"input has inconsistent input_size: got {input.size(1)}, expected {self.input_size}")

    def check_forward_hidden(self, input: Tensor, hx: Tensor, hidden_label: str = "") -> None:
        """Refuse a hidden state of another size than the input's batch and the cell have."""
        if input.size(0) != hx.size(0):
            refuse(f"Input batch size {input.size(0)} doesn't match hidden{hidden_label} batch size {hx.size(0)}")
        if hx.size(1) != self.hidden_size:
            refuse(f"hidden{hidden_label} has inconsistent hidden_size: got {hx.size(1)}, expected {self.hidden_size}")

    def _check(self, input: Tensor, hx: list[Tensor]) -> None:
        if isinstance(input, Tensor):  # an fx proxy has no size yet
            self.check_forward_input(input)
            for i, state in enumerate(hx):
                self.check_forward_hidden(input, state, "" if len(hx) == 1 else f"[{i}]")

    def _zeros(self, input: Tensor) -> Tensor:
        # A method of the input, which fx can trace.
        return input.new_zeros([input.size(0), self.hidden_size])

    def _biases(self, input: Tensor) -> tuple[Tensor, Tensor]:
        # The kernel adds the biases packed with the weights and reads none of these, but wants two tensors. A module's
        # own may be None, which torch.jit.trace remembers of the attribute and then finds no kernel for.
        return (input, input)

    def _weight_bias(self) -> dict[str, dict[str, Any]]:
        return {
            "weight": {"weight_ih": self._weight_ih, "weight_hh": self._weight_hh},
            "bias": {"bias_ih": self.bias_ih, "bias_hh": self.bias_hh},
        }

    def get_weight(self) -> dict[str, Tensor]:
        """``weight_ih`` and ``weight_hh``: int8, or floats for ``torch.float16``."""
        return self._weight_bias()["weight"]

    def get_bias(self) -> dict[str, Tensor | None]:
        """``bias_ih`` and ``bias_hh``, floats or None."""
        return self._weight_bias()["bias"]

    def set_weight_bias(self, weight_bias_dict: dict[str, dict[str, Any]]) -> None:
        """Replace weights and biases, and pack them.

        Args:
            weight_bias_dict: as `get_weight` and `get_bias` give them, under ``"weight"`` and ``"bias"``.
        """
        self._follow_engine()
        weights, biases = weight_bias_dict["weight"], weight_bias_dict["bias"]
        self._hold((weights["weight_ih"], weights["weight_hh"]), (biases["bias_ih"], biases["bias_hh"]))

    # State dict: _packed_weight_ih and _packed_weight_hh, each a tuple (weight, bias). The original saves packed
    # objects; they load as well.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for which in ("ih", "hh"):
            name = f"_packed_weight_{which}"
            plain = (getattr(self, f"_weight_{which}"), getattr(self, f"bias_{which}"))
            destination[prefix + name] = getattr(self, name) if layout.as_original else plain

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        kept = {
            "_packed_weight_ih": (self._weight_ih, self.bias_ih),
            "_packed_weight_hh": (self._weight_hh, self.bias_hh),
        }
        saved = {key: unpack_one(loading.take(key, pair)) for key, pair in kept.items()}
        if all(loading.fits(key, saved[key][0], pair[0].shape) for key, pair in kept.items()):
            weights, biases = zip(*saved.values(), strict=True)
            self.weight_dtype = torch.qint8 if weights[0].is_quantized else torch.float16
            self._hold(weights, biases)

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False, *, engine: str | None = None) -> Any:
        """Quantize the weights of a float cell.

        Args:
            mod: an ``nn.RNNCell``, ``nn.LSTMCell`` or ``nn.GRUCell`` with a ``qconfig``, whose weight observer says
                how; None for int8 per tensor. It is not changed.
            use_precomputed_fake_quant: accepted for the original's sake; the weights are always looked at.
            engine: who packs the weights; None for the engine selected in torch.

        Raises:
            ModuleTypeError: another class, no qconfig or no biases.
            WeightTypeError: the weight observer is neither one of int8 nor of float16.
        """
        kinds = (
            {one._FLOAT_MODULE: one for one in RNNCellBase.__subclasses__()}
            if cls is RNNCellBase
            else {cls._FLOAT_MODULE: cls}
        )
        weights = DynamicWeights(cls, mod, tuple(kinds))
        if not mod.bias:
            raise ModuleTypeError(
                f"{cls.__name__}.from_float got a cell without biases, which it refuses; leave it float"
            )
        made = kinds[type(mod)]._blank(mod, weights.dtype, engine)
        made._hold((weights.quantize(mod.weight_ih), weights.quantize(mod.weight_hh)), (mod.bias_ih, mod.bias_hh))
        return made

    @classmethod
    def from_reference(cls, ref_mod: Any, *, engine: str | None = None) -> Any:
        """Pack the weights of a reference cell."""
        if not hasattr(ref_mod, "weight_ih_dtype"):
            raise ModuleTypeError(
                f"{cls.__name__}.from_reference needs a reference cell, not a {type(ref_mod).__name__}"
            )
        made = cls._blank(ref_mod, ref_mod.weight_ih_dtype, engine)
        weights = (ref_mod.get_quantized_weight_ih(), ref_mod.get_quantized_weight_hh())
        made._hold(weights, (ref_mod.bias_ih, ref_mod.bias_hh))
        return made

    @classmethod
    def _blank(cls, mod: Any, dtype: torch.dtype, engine: str | None) -> Any:
        """A cell without weights that has the geometry of another."""
        own = {"nonlinearity": mod.nonlinearity} if hasattr(mod, "nonlinearity") else {}
        with empty():
            return cls(mod.input_size, mod.hidden_size, mod.bias, dtype=dtype, engine=engine, **own)


class RNNCell(RNNCellBase):
    """``nn.RNNCell`` on floats whose products are done in integers: (batch, input) and (batch, hidden) to
    (batch, hidden), float32.

    Args:
        input_size, hidden_size: features of an input and of the hidden state.
        bias: whether there are (float) biases.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        dtype: of the weights, ``torch.qint8`` or ``torch.float16``.
        engine: who packs; None for the engine selected in torch whenever weights are set.

    Raises:
        ConfigError: another nonlinearity.

    Example:
        >>> RNNCell(10, 20)(torch.zeros(3, 10)).shape
        torch.Size([3, 20])
    """

    __constants__ = [*RNNCellBase.__constants__, "nonlinearity"]  # noqa: RUF012
    _FLOAT_MODULE = nn.RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        self.__dict__["nonlinearity"] = nonlinearity  # packing binds the operator
        super().__init__(input_size, hidden_size, bias, 1, dtype, engine=engine)

    def _operator(self) -> Any:
        if self.nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"Unknown nonlinearity: {self.nonlinearity}; use tanh or relu")
        return getattr(_ops, f"quantized_rnn_{self.nonlinearity}_cell_dynamic")

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; ``hx`` is the hidden state, zeros by default."""
        hx = self._zeros(input) if hx is None else hx
        self._check(input, [hx])
        bias_ih, bias_hh = self._biases(input)
        return self._op(  # type: ignore[no-any-return]
            input, hx, self._packed_weight_ih, self._packed_weight_hh, bias_ih, bias_hh
        )


class GRUCell(RNNCellBase):
    """``nn.GRUCell`` on floats whose products are done in integers; see :class:`RNNCell`, without ``nonlinearity``."""

    _FLOAT_MODULE = nn.GRUCell
    _OP = _ops.quantized_gru_cell_dynamic

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, dtype, engine=engine)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step; ``hx`` is the hidden state, zeros by default."""
        hx = self._zeros(input) if hx is None else hx
        self._check(input, [hx])
        bias_ih, bias_hh = self._biases(input)
        return self._op(  # type: ignore[no-any-return]
            input, hx, self._packed_weight_ih, self._packed_weight_hh, bias_ih, bias_hh
        )


class LSTMCell(RNNCellBase):
    """``nn.LSTMCell`` on floats whose products are done in integers; see :class:`RNNCell`, without ``nonlinearity``.

    Example:
        >>> h, c = LSTMCell(10, 20)(torch.zeros(3, 10))
        >>> h.shape, c.shape
        (torch.Size([3, 20]), torch.Size([3, 20]))
    """

    _FLOAT_MODULE = nn.LSTMCell
    _OP = _ops.quantized_lstm_cell_dynamic

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, dtype, engine=engine)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step; ``hx`` is the pair of hidden and cell state, zeros by default."""
        if hx is None:
            zeros = self._zeros(input)
            hx = (zeros, zeros)
        self._check(input, [hx[0], hx[1]])
        bias_ih, bias_hh = self._biases(input)
        h, c = self._op(input, [hx[0], hx[1]], self._packed_weight_ih, self._packed_weight_hh, bias_ih, bias_hh)
        return h, c
