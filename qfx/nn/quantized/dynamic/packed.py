"""The two weights of a recurrent cell, for the input and for the hidden state, packed for one of torch's engines.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch._jit_internal import is_scripting

from qfx import layout
from qfx.kernels.packing import PackedSpec
from qfx.nn.errors import WeightTypeError
from qfx.nn.quantized.module import Repacking, blank_weight, made_empty, unpack_one
from qfx.nn.quantized.saved import Loading, Saved

_ops = torch.ops.quantized
Weights = tuple[torch.Tensor, torch.Tensor]
Biases = tuple[torch.Tensor | None, torch.Tensor | None]


def spec(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, engine: str | None = None) -> PackedSpec:
    """What packs one weight: int8 by ``engine``, half floats by fbgemm, which alone has them."""
    if dtype == torch.qint8:
        return PackedSpec("linear", weight, bias, engine=engine)
    return PackedSpec("linear_fp16", weight, bias, engine="fbgemm")


def pack_weight_bias(qweight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Any:
    """Pack a weight and its bias for the engine selected in torch.

    Args:
        qweight: int8, shape (out, in); a float weight where ``dtype`` is ``torch.float16``.
        bias: float32, shape (out,), or None.
        dtype: ``torch.qint8`` or ``torch.float16``.
    """
    return spec(qweight, bias, dtype).pack()


def unpack_cell(param: Any) -> tuple[Weights, Biases, bool]:
    """Weights, biases and whether inputs have 7 bits, from one of torch's objects with the parameters of a cell."""
    (_, _, _, integers, packed), _ = param.__getstate__()
    (weight_ih, bias_ih), (weight_hh, bias_hh) = (unpack_one(one) for one in packed)
    return (weight_ih, weight_hh), (bias_ih, bias_hh), bool(integers and integers[0])


class PackedPair(Repacking):
    """Owns the two weights and two biases of a recurrent cell, and makes packed objects of them.

    A subclass names in ``_CACHES`` what it packs in `_repack` (and `_script_repack` for scripts), lists in
    ``__constants__`` what a script has to know beside the weights, and keeps ``weight_dtype``.
    """

    _OWNED = ("_weight_ih", "_weight_hh")

    _weight_ih: torch.Tensor
    _weight_hh: torch.Tensor
    bias_ih: torch.Tensor | None
    bias_hh: torch.Tensor | None
    weight_dtype: torch.dtype

    def _choose_dtype(self, dtype: torch.dtype) -> None:
        if dtype not in (torch.qint8, torch.float16):
            raise WeightTypeError(f"a recurrent cell stores torch.qint8 or torch.float16, not {dtype}")
        self.weight_dtype = dtype

    def _hold_blank(self, gates: int, sizes: tuple[int, int], bias: bool) -> None:
        if made_empty():
            return
        blank = blank_weight if self.weight_dtype == torch.qint8 else torch.zeros
        ih, hh = (blank(gates, size) for size in sizes)
        self._hold((ih, hh), (torch.zeros(gates), torch.zeros(gates)) if bias else (None, None))

    def _hold(self, weights: Iterable[torch.Tensor], biases: Iterable[torch.Tensor | None]) -> None:
        """Own the parameters and pack them by ``self.engine``."""
        if self.weight_dtype == torch.float16:
            # What half floats cannot say is lost at packing; keeping the rounded values makes state and kernel agree.
            weights = [weight.half().float() for weight in weights]
        self._weight_ih, self._weight_hh = (weight.detach() for weight in weights)
        self.bias_ih, self.bias_hh = (None if bias is None else bias.detach().clone() for bias in biases)
        self._repack()

    def _unpacked(self, *packed: Any) -> tuple[Any, Any]:
        weights, biases = zip(*map(unpack_one, packed), strict=True)
        return weights, biases

    def _pack_both(self) -> tuple[Any, Any]:
        pairs = ((self._weight_ih, self.bias_ih), (self._weight_hh, self.bias_hh))
        ih, hh = (spec(*pair, self.weight_dtype, self.engine).pack() for pair in pairs)
        return ih, hh

    def _script_repack(self) -> None:
        raise NotImplementedError

    # Python copies and pickles keep the whole __dict__ but the caches; a script has its own, typed state. TorchScript
    # compiles only the first branch of each.

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, bool]:
        """The state without what is packed."""
        if is_scripting():
            return (self._weight_ih, self._weight_hh, self.bias_ih, self.bias_hh, self.training)
        else:
            return self._python_state()  # type: ignore[return-value]

    @torch.jit.export
    def __setstate__(
        self, state: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, bool]
    ) -> None:
        """Take the state and pack the weights for this machine."""
        if is_scripting():
            self._weight_ih = state[0]
            self._weight_hh = state[1]
            self.bias_ih = state[2]
            self.bias_hh = state[3]
            self.training = state[4]
            self._script_repack()
        else:
            self._restore(state)  # type: ignore[arg-type]


class PackedParameter(PackedPair, Saved):
    """The parameters of one layer and direction of a recurrent module.

    Args:
        param: an object of ``torch.ops.quantized.make_quantized_cell_params_dynamic`` or ``.._fp16``.
        engine: who packs; None for the engine selected in torch.

    Attributes:
        param: such an object, made from the weights kept here: what ``torch.quantized_lstm`` takes.

    The state dict has one entry, ``param``: the tuple (input weight, hidden weight, input bias, hidden bias, whether
    inputs have 7 bits). The original saves the packed object itself, which only ``torch.load(weights_only=False)``
    reads and which is packed for whatever engine is selected then; one of those loads as well, and is saved where
    `qfx.layout` says so.
    """

    __constants__ = ["_engine_given", "engine", "seven_bits", "weight_dtype"]  # noqa: RUF012
    _CACHES = ("param",)

    def __init__(self, param: Any, *, engine: str | None = None) -> None:
        super().__init__()
        self._choose_engine(engine)
        weights, biases, self.seven_bits = unpack_cell(param)
        self._choose_dtype(torch.qint8 if weights[0].is_quantized else torch.float16)
        self._hold(weights, biases)

    @classmethod
    def _of(
        cls,
        weights: Iterable[torch.Tensor],
        biases: Iterable[torch.Tensor | None],
        dtype: torch.dtype,
        seven_bits: bool,
        engine: str | None,
    ) -> "PackedParameter":
        made = cls.__new__(cls)
        super(PackedParameter, made).__init__()
        made._choose_engine(engine)
        made._choose_dtype(dtype)
        made.seven_bits = seven_bits
        made._hold(weights, biases)
        return made

    def _adopt(self, state: dict[str, Any]) -> None:
        weights, _, self.seven_bits = unpack_cell(state["param"])
        self._choose_dtype(torch.qint8 if weights[0].is_quantized else torch.float16)
        super()._adopt(state)

    def _unpacked(self, *packed: Any) -> tuple[Any, Any]:
        return unpack_cell(packed[0])[:2]

    def _repack(self) -> None:
        packed = self._pack_both()
        if self.weight_dtype == torch.qint8:
            # qnnpack has 8 bits whatever it is told, and warns if it is told otherwise.
            seven_bits = self.seven_bits and self.engine != "qnnpack"
            make = _ops.make_quantized_cell_params_dynamic
            self.param = make(*packed, self.bias_ih, self.bias_hh, seven_bits)
        else:
            self.param = _ops.make_quantized_cell_params_fp16(*packed)

    def _script_repack(self) -> None:
        if self.weight_dtype == torch.qint8:
            bias_ih, bias_hh = self.bias_ih, self.bias_hh
            assert bias_ih is not None  # TorchScript learns it from this
            assert bias_hh is not None
            self.param = torch.ops.quantized.make_quantized_cell_params_dynamic(
                torch.ops.quantized.linear_prepack(self._weight_ih, bias_ih),
                torch.ops.quantized.linear_prepack(self._weight_hh, bias_hh),
                bias_ih,
                bias_hh,
                self.seven_bits and self.engine != "qnnpack",
            )
        else:
            self.param = torch.ops.quantized.make_quantized_cell_params_fp16(
                torch.ops.quantized.linear_prepack_fp16(self._weight_ih, self.bias_ih),
                torch.ops.quantized.linear_prepack_fp16(self._weight_hh, self.bias_hh),
            )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        plain = (self._weight_ih, self._weight_hh, self.bias_ih, self.bias_hh, self.seven_bits)
        destination[prefix + "param"] = self.param if layout.as_original else plain

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        saved = loading.take("param", None)
        if saved is not None:
            parts = (saved[:2], saved[2:4], saved[4]) if isinstance(saved, tuple) else unpack_cell(saved)
            weights, biases, seven_bits = parts
            present = (self._weight_ih, self._weight_hh)
            if all(loading.fits("param", new, old.shape) for new, old in zip(weights, present, strict=True)):
                self.weight_dtype = torch.qint8 if weights[0].is_quantized else torch.float16
                self.seven_bits = seven_bits
                self._hold(weights, biases)
