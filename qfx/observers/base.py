"""What all observers have in common.

Observers can be compiled by TorchScript, which reads annotations as objects: no ``from __future__ import
annotations`` in modules that define one. It also looks for class annotations in the nearest class that has any, so a
subclass that annotates an attribute repeats ``seen_shape``.
"""

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from qfx import dtypes
from qfx.errors import ConfigError, ObservationError
from qfx.frames import warn
from qfx.observers.factory import with_args, with_callable_args
from qfx.qparams import EPS, QParams, range_to_qparams, symmetric_zero_point
from qfx.quick import QuickAttributes

SAW_INTEGERS = "saw integers, which it took as floats"
"""The problem of an observer of a tensor that should not be quantized."""


class ObserverBase(QuickAttributes, ABC, nn.Module):
    """Base of all observers: a module that returns its input and remembers something of it.

    A subclass implements ``forward`` and ``calculate_qparams``.

    Args:
        dtype: the dtype the observed tensor will be quantized to.
        is_dynamic: the scale is chosen anew for each input instead of once after calibration.

    Attributes:
        batches: how many non-empty tensors were seen; 0 also after loading a state dict, which does not say.
        seen_shape: shape of the last one, ``[]`` before.
        values: how many values of a graph share this observer, 1 by default; it is called once for each.
        seen_shapes: shapes of the last ones, one for each of ``values``, in the order of calls.
        seen_float32: whether each of these was float32, the only dtype kernels quantize from. None of these is part of
            the state dict.
    """

    def __init__(self, dtype: Any, is_dynamic: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        self.is_dynamic = is_dynamic
        self._see_nothing()

    def _see_nothing(self) -> None:
        self.seen_shape: list[int] = []
        self.seen_shapes: list[list[int]] = []
        self.seen_float32: list[bool] = []
        self.values = 1
        self.batches = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; an observer that the original pickled has not counted what it saw."""
        super().__setstate__(state)
        if "batches" not in state:
            self._see_nothing()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Record ``x`` and return it."""

    @abstractmethod
    def calculate_qparams(self, **kwargs: Any) -> Any:
        """Return ``(scale, zero_point)`` for what was seen so far."""

    def problems(self) -> list[str]:
        """Return what makes the statistics doubtful, worst first, in words: empty when all is well."""
        return []

    def _see(self, x: Tensor) -> bool:
        """Remember the shape of ``x``; false where it is empty."""
        if x.numel() == 0:
            return False
        self.seen_shape = list(x.shape)
        self.seen_shapes.append(self.seen_shape)
        self.seen_float32.append(x.dtype == torch.float32)
        if len(self.seen_shapes) > self.values:
            self.seen_shapes.pop(0)
            self.seen_float32.pop(0)
        self.batches += 1
        return True

    with_args = classmethod(with_args)
    with_callable_args = classmethod(with_callable_args)


def middle_outside(qscheme: torch.qscheme, dtype: torch.dtype, reduce_range: bool) -> bool:
    """Whether codes have no room for their zero point: 128 for symmetric unsigned ones, of which 0..127 are left."""
    return reduce_range and qscheme in dtypes.SYMMETRIC and dtype in (torch.quint8, torch.uint8)


class UniformQuantizationObserverBase(ObserverBase):
    """Base of observers that choose evenly spaced levels from a range.

    Args:
        dtype: ``torch.quint8`` (default), ``qint8``, ``qint32``, ``quint4x2`` or a plain integer or float8 dtype.
        qscheme: one of the five schemes of torch, ``torch.per_tensor_affine`` by default.
        reduce_range: one bit less, for kernels that add products in 16 bits. Halves a range that was asked for.
        quant_min: smallest code; with ``quant_max`` ``None`` (default) all codes of ``dtype`` are used.
        quant_max: largest code.
        factory_kwargs: ``device`` and ``dtype`` of the buffers.
        eps: the smallest scale; ``2**-23`` by default.
        is_dynamic: see ``ObserverBase``.

    Raises:
        ConfigError: a scheme or dtype no observer takes, or a code range without 0 or too wide for ``dtype``.
    """

    eps: Tensor
    min_val: Tensor
    max_val: Tensor
    seen_shape: list[int]
    seen_shapes: list[list[int]]
    seen_float32: list[bool]

    # The layout of the state dict, shared with the original: 2 made eps a buffer, 3 renamed min_vals/max_vals to
    # min_val/max_val and gave the histogram's unset range shape () instead of (0,).
    _version = 3

    def __init__(
        self,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic, **kwargs)
        if not (dtypes.is_per_tensor(qscheme) or dtypes.is_per_channel(qscheme)):
            raise ConfigError(f"{qscheme} is not a scheme with evenly spaced levels; use e.g. torch.per_tensor_affine")
        if not (dtypes.is_integer(dtype) or dtype in dtypes.FLOAT8_DTYPES):
            raise ConfigError(
                f"Default Observer only works for integer dtypes and 8-bit floats, e.g. torch.quint8; "
                f"{type(self).__name__} got {dtype}"
            )
        self.qscheme = qscheme
        self.reduce_range = reduce_range
        self.register_buffer("eps", torch.tensor([eps], **torch.nn.factory_kwargs(factory_kwargs)))
        self.has_customized_qrange = quant_min is not None and quant_max is not None
        self.quant_min, self.quant_max = dtypes.resolve_code_range(dtype, quant_min, quant_max, reduce_range)
        # Plain flags, since TorchScript takes no scheme or dtype as an argument.
        self._work_out()

    def _work_out(self) -> None:
        """Set what follows from the arguments, and what is yet to be seen."""
        self._symmetric = dtypes.is_symmetric(self.qscheme)
        self._float_zero_point = dtypes.has_float_zero_point(self.qscheme)
        self._middle = symmetric_zero_point(self.dtype, self.quant_min, self.quant_max, self.has_customized_qrange)
        self._saw_empty = False
        self._saw_integers = False
        self._saw_infinity = False
        self._saw_nan = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and work out what the original does not pickle."""
        super().__setstate__(state)
        if "_symmetric" not in state:
            self._work_out()

    def _note(self, x: Tensor) -> bool:
        """Remember facts of ``x`` that cost nothing to see; false means there is nothing in it to count."""
        if not self._see(x):
            self._saw_empty = True
            return False
        if not x.is_floating_point():
            if x.is_complex() or x.is_quantized:
                raise ObservationError(
                    f"an observer saw a {x.dtype} tensor; observe a float tensor instead (e.g. dequantize it)"
                )
            self._saw_integers = True
        return True

    def _note_odd(self, x: Tensor) -> None:
        """Remember whether there is NaN or infinity in ``x``."""
        self._saw_nan = self._saw_nan or bool(x.isnan().any())
        self._saw_infinity = self._saw_infinity or bool(x.isinf().any())

    @torch.jit.export
    def _calculate_qparams(self, min_val: Tensor, max_val: Tensor) -> tuple[Tensor, Tensor]:
        """Choose ``(scale, zero_point)`` for a range; 1 and 0, with a warning, where nothing was seen."""
        if self._unset(min_val, max_val):
            message = "must run observer before calling calculate_qparams: it never ran, scale 1, zero point 0"
            if is_scripting():
                warnings.warn(message, stacklevel=2)  # the only one TorchScript knows
            else:
                warn(message)
            device = min_val.device
            return torch.ones([1], device=device), torch.zeros([1], dtype=torch.int64, device=device)
        return range_to_qparams(
            min_val,
            max_val,
            self.eps,
            self.quant_min,
            self.quant_max,
            self._symmetric,
            self._float_zero_point,
            self._middle,
        )

    def _unset(self, min_val: Tensor, max_val: Tensor) -> bool:
        if min_val.numel() == 0 or max_val.numel() == 0:
            return True
        return min_val.dim() == 0 and float(min_val) == float("inf") and float(max_val) == float("-inf")

    @torch.jit.export
    def _validate_qmin_qmax(self, quant_min: int, quant_max: int) -> None:
        if not (quant_min <= 0 and quant_max >= 0 and quant_min < quant_max):
            raise ConfigError("the code range must include 0 and have more than one code")

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forget everything seen."""
        raise NotImplementedError("this observer cannot be reset; make a new one")

    def qparams(self) -> QParams:
        """Return what was chosen as one value: ``calculate_qparams`` with dtype, codes, scheme and axis."""
        scale, zero_point = self.calculate_qparams()
        axis = getattr(self, "ch_axis", None) if dtypes.is_per_channel(self.qscheme) else None
        return QParams(scale, zero_point, axis, self.dtype, self.quant_min, self.quant_max, self.qscheme)

    def problems(self) -> list[str]:
        """Return what makes the statistics doubtful: never ran, NaN, infinity, integers, only empty tensors.

        Read from buffers and flags, when asked; calibration pays nothing for it.
        """
        low, high = getattr(self, "min_val", None), getattr(self, "max_val", None)
        if low is None or high is None:  # a subclass with statistics of its own
            return self._odd_values(self._saw_nan, self._saw_infinity)
        doubted = self._saw_empty or self._saw_integers or self._saw_infinity or self._saw_nan
        if not doubted and low.numel() and bool((low - high).isfinite().all()):
            return []  # infinity or NaN in either would be one in the difference
        unset = self._unset(low, high)
        nan = self._saw_nan or (not unset and bool(low.isnan().any() or high.isnan().any()))
        infinite = (low.isinf() | high.isinf()) & (low <= high)  # the other way round, a channel saw no finite value
        infinity = self._saw_infinity or (not unset and bool(infinite.any()))
        found = []
        if unset:
            nothing = "saw only empty tensors" if self._saw_empty else "never ran"
            found.append("saw no finite value" if nan or infinity else nothing)
        return found + self._odd_values(nan, infinity)

    def _odd_values(self, nan: bool, infinity: bool) -> list[str]:
        said = (
            (nan, "saw NaN"),
            (infinity, "saw infinity"),
            (self._saw_integers, SAW_INTEGERS),
        )
        return [problem for seen, problem in said if seen]

    def _forget(self) -> None:
        self.seen_shape = torch.jit.annotate(list[int], [])
        self.seen_shapes = torch.jit.annotate(list[list[int]], [])
        self.seen_float32 = torch.jit.annotate(list[bool], [])
        self.batches = 0
        self._saw_empty = False
        self._saw_integers = False
        self._saw_infinity = False
        self._saw_nan = False

    def _batches_seen(self) -> int:
        """Return how many batches the statistics stand for; loaded ones, whose number is unknown, count as one."""
        return max(self.batches, 0 if self._unset(self.min_val, self.max_val) else 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any) -> None:
        version = local_metadata.get("version", None)
        if version is None or version == 1:
            state_dict[prefix + "eps"] = torch.tensor([EPS])
        for name, nothing in (("min_val", float("inf")), ("max_val", float("-inf"))):
            key, mine = prefix + name, getattr(self, name, None)
            if key in state_dict and mine is not None and mine.dim() == 0 and state_dict[key].dim() == 1:
                # Before version 3 one range could have shape (0,) or (1,)
                old = state_dict[key]
                state_dict[key] = old.reshape(()) if old.numel() == 1 else torch.tensor(nothing)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
