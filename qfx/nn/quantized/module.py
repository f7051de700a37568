"""What quantized modules with a packed weight share: state, copies, and the input check.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

import threading
from typing import Any

import torch
from torch._jit_internal import is_scripting

from qfx.kernels.packing import PackedSpec, current_engine
from qfx.kernels.plain import put_together, take_apart
from qfx.nn.errors import InputError, ModuleTypeError
from qfx.nn.intrinsic import _FusedModule
from qfx.quick import QuickAttributes


def check_rank(x: torch.Tensor, rank: int, layout: str) -> None:
    """Refuse an input of another number of dimensions; says nothing about an fx proxy, whose shape is not known yet."""
    if is_scripting():  # noqa: SIM108  TorchScript compiles one branch of a statement, but all of an expression
        wrong = x.dim() != rank
    else:
        wrong = isinstance(x, torch.Tensor) and x.dim() != rank
    if wrong:
        if is_scripting():
            raise ValueError("Input shape must be `" + layout + "`!")
        else:
            raise InputError(f"Input shape must be `{layout}`! but it is {tuple(x.shape)}")


def refuse(message: str) -> None:
    """Raise an error about an input, in Python one of qfx's; a script knows the builtin one only."""
    if is_scripting():
        raise RuntimeError(message)
    else:
        raise InputError(message)


def cat(tensors: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Concatenate; quantized tensors take the qparams of the first, without torch's warning that they differ."""
    first = tensors[0]
    if first.is_quantized:
        return torch.ops.quantized.cat(tensors, dim, first.q_scale(), first.q_zero_point())  # type: ignore[no-any-return]
    return torch.cat(tensors, dim)


def stack(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """As :func:`cat`, along a new dimension."""
    return cat([tensor.unsqueeze(dim) for tensor in tensors], dim)


def refuse_devices(owner: str, device: Any) -> None:
    """Quantized kernels exist for the CPU only; say so where the module is made, not where the first kernel fails."""
    if device is not None and torch.device(device).type != "cpu":
        raise InputError(
            f"{owner} runs on the CPU only, not on {device}; move the float model to the CPU before converting it"
        )


def unpack_one(packed: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of one layer: a pair of them as it is, or what one of torch's packed linear objects holds."""
    if isinstance(packed, tuple):
        return packed
    # A packed object says what it is made from without being asked which engine made it.
    (weight, bias), _ = packed.__getstate__()
    return weight, bias


def blank_weight(*shape: int) -> torch.Tensor:
    """An int8 weight of zeros, for a module that waits for ``set_weight_bias`` or ``load_state_dict``."""
    return torch._make_per_tensor_quantized_tensor(torch.zeros(shape, dtype=torch.int8), 1.0, 0)


_making = threading.local()


class empty:
    """Modules made inside the block have no weight, not even a blank one: whoever makes them gives it to them next."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = made_empty()
        _making.empty = True

    def __exit__(self, *error: object) -> None:
        _making.empty = self._before


def made_empty() -> bool:
    """Whether a module made now is to have no weight yet."""
    return getattr(_making, "empty", False)


class WeightedQuantizedModule(QuickAttributes, torch.nn.Module):
    """A quantized module that lowering makes from a reference module, by ``from_reference``."""

    _FLOAT_MODULE: Any = ()

    @classmethod
    def _float_modules(cls) -> tuple[type[torch.nn.Module], ...]:
        return cls._FLOAT_MODULE if isinstance(cls._FLOAT_MODULE, tuple) else (cls._FLOAT_MODULE,)

    @classmethod
    def from_reference(cls, ref_module: Any, output_scale: float, output_zero_point: int) -> "WeightedQuantizedModule":
        """Make the quantized module from a reference module and the output's scale and zero point."""
        raise NotImplementedError

    @classmethod
    def _weighted_part(cls, reference: Any) -> Any:
        """The reference module with the weight: itself, or the first of a fused container."""
        if not issubclass(cls._float_modules()[0], _FusedModule):
            return reference
        weighted, *others = reference._modules.values()
        if any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in others):
            raise ModuleTypeError(
                f"{cls.__name__}.from_reference: fold the batch norm into the {type(weighted).__name__} first"
            )
        return weighted


class Repacking(QuickAttributes, torch.nn.Module):
    """Keeps plain tensors and makes packed objects from them, here and wherever a copy or a pickle of it goes.

    A subclass says in ``_OWNED`` which of its attributes are weights, in ``_CACHES`` which ones `_repack` makes.

    Attributes:
        engine: the name of the engine the weight is packed by. Given by the caller, or else the one selected in torch
            when the weight was last set; copies, pickles and loaded state are packed by it again wherever they are,
            so their numbers do not depend on the setting there. A machine without that engine takes another, see
            :func:`qfx.kernels.packing.usable_engine`.

    A TorchScript module has no say in the engine: ``torch.jit.load`` packs the int8 weight for the one selected at
    that moment.
    """

    engine: str
    _OWNED: tuple[str, ...] = ("_weight",)
    _CACHES: tuple[str, ...] = ("_packed_params",)

    def _out_channels(self, weight: torch.Tensor) -> int:
        return weight.shape[0]

    def _repack(self) -> None:
        raise NotImplementedError

    def _choose_engine(self, engine: str | None) -> None:
        self._engine_given = engine is not None
        self.engine = current_engine() if engine is None else engine

    def _follow_engine(self) -> None:
        """Take the engine selected in torch now, unless the caller gave one: the weight is about to be replaced."""
        if not self._engine_given:
            self.engine = current_engine()

    def _python_state(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in self._CACHES}
        return kept | {name: take_apart(kept[name]) for name in self._OWNED}

    def _restore(self, state: dict[str, Any]) -> None:
        if self._OWNED[0] not in state:
            self._adopt(state)
            return
        super().__setstate__(state | {name: put_together(state[name]) for name in self._OWNED})
        self._repack()

    def _adopt(self, state: dict[str, Any]) -> None:
        """Take a state that the original pickled: its weights are in the packed objects, and no engine is named."""
        super().__setstate__({name: value for name, value in state.items() if name not in self._CACHES})
        self._choose_engine(None)
        self._hold(*self._unpacked(*(state[name] for name in self._CACHES if name in state)))

    def _unpacked(self, *packed: Any) -> tuple[Any, Any]:
        """The arguments of `_hold`, from what the caches of a pickled module held."""
        return unpack_one(packed[0])

    def _hold(self, weight: Any, bias: Any) -> None:
        raise NotImplementedError


class PackedModule(Repacking, WeightedQuantizedModule):
    """Owns an int8 weight, a bias and an engine's name; ``_packed_params`` is a cache made from them."""

    _bias: torch.Tensor | None
    _weight: torch.Tensor

    def _hold(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Own the parameters and pack them by ``self.engine``."""
        if bias is None and self.engine == "qnnpack":
            bias = torch.zeros(self._out_channels(weight))  # what it packs for none, and unpacks
        self.put(_weight=weight.detach(), _bias=None if bias is None else bias.detach().clone())
        self._repack()

    def _repack(self) -> None:
        self.put(_packed_params=self._packed_spec().pack())

    def _packed_spec(self) -> PackedSpec:
        raise NotImplementedError

    def set_weight_bias(self, w: torch.Tensor, b: torch.Tensor | None) -> None:
        """Replace the weight (``torch.qint8``) and the bias (float, or None), and pack them."""
        self._follow_engine()
        self._hold(w, b)

    def _weight_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._weight, self._bias

    def weight(self) -> torch.Tensor:
        """The int8 weight, a quantized tensor."""
        return self._weight_bias()[0]

    def bias(self) -> torch.Tensor | None:
        """The float bias, or None."""
        return self._weight_bias()[1]
