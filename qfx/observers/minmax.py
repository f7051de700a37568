"""Observers that remember the smallest and the largest value, of the tensor or of each channel."""

from typing import Any

import torch
from torch import Tensor
from torch._jit_internal import is_scripting
from torch.jit._trace import is_tracing

from qfx import dtypes
from qfx.errors import UnsupportedConfigError
from qfx.observers.base import UniformQuantizationObserverBase, middle_outside
from qfx.observers.statistics import MinMaxStatistics, MovingAverageStatistics, Statistics
from qfx.qparams import EPS


def take_scheme(name: str, qscheme: torch.qscheme, allowed: tuple[torch.qscheme, ...]) -> None:
    """Raise UnsupportedConfigError unless the observer of this name has the scheme."""
    if qscheme not in allowed:
        names = " and ".join(map(str, reversed(allowed)))
        raise UnsupportedConfigError(f"{name}'s qscheme only support {names}; got {qscheme}")


def refuse_dynamic(name: str, is_dynamic: bool) -> None:
    """Raise UnsupportedConfigError where a scale is to be chosen anew for each input."""
    if is_dynamic:
        raise UnsupportedConfigError(
            f"{name} doesn't support dynamic quantization, as it gathers over batches; "
            "use PlaceholderObserver(is_dynamic=True)"
        )


def _refuse_reduced(qscheme: torch.qscheme, dtype: torch.dtype, reduce_range: bool) -> None:
    if middle_outside(qscheme, dtype, reduce_range):
        raise UnsupportedConfigError(
            f"Cannot reduce range for symmetric quantization to {dtype}; use torch.qint8 or an affine scheme"
        )


def extremes(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return smallest and largest value as ``dtype``, found in the tensor's own dtype: rounding keeps the order."""
    low, high = torch.aminmax(x.to(torch.uint8) if x.dtype == torch.bool else x)
    if x.dtype == dtype:
        return low, high
    return low.to(dtype), high.to(dtype)


def channel_extremes(x: Tensor, axis: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return smallest and largest value of each channel along ``axis``, as ``dtype``."""
    source = x.to(torch.uint8) if x.dtype == torch.bool else x
    rows = source.transpose(0, axis).flatten(start_dim=1) if source.dim() > 1 else source.unsqueeze(1)
    # Not aminmax, which along a dimension is not vectorised: twenty times as long
    return rows.amin(1).to(dtype), rows.amax(1).to(dtype)


@torch.jit.unused
def _has_numbers(x: Tensor) -> bool:
    """Whether there are values to look at: none on meta, none while a graph is recorded or shapes are worked out."""
    recorded = torch.compiler.is_compiling() or is_tracing()
    return not (recorded or x.is_meta or type(x) is not Tensor or torch._C._len_torch_dispatch_stack() > 0)


def odd(low: Tensor, high: Tensor) -> bool:
    """Whether NaN or infinity may be among the ends (an overflow says so too): worth a closer look."""
    if not is_scripting() and not _has_numbers(low):
        return False
    # Of one pair as numbers, at an eighth of the price of tensors
    width = float(high) - float(low) if low.numel() == 1 else float((high - low).sum())
    return width - width != 0.0


def finite_channel_extremes(x: Tensor, axis: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Like ``channel_extremes``, of the finite values; infinity and -infinity for a channel that has none."""
    fine = x.isfinite()
    low = channel_extremes(torch.where(fine, x, float("inf")), axis, dtype)[0]
    return low, channel_extremes(torch.where(fine, x, -float("inf")), axis, dtype)[1]


class MinMaxObserver(UniformQuantizationObserverBase):
    """Observes the smallest and the largest value ever seen.

    Args:
        dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps, is_dynamic: see the base class;
            ``qscheme`` per tensor.

    Input of any shape and float dtype; integers are taken as floats (and mentioned by ``problems()``), empty tensors
    ignored. Infinity and NaN are left out of the range and mentioned by ``problems()``.

    Raises:
        ConfigError: a per-channel scheme, or what the base class refuses.

    Example:
        >>> observer = MinMaxObserver()
        >>> _ = observer(torch.tensor([-1.0, 3.0]))
        >>> observer.calculate_qparams()
        (tensor([0.0157]), tensor([64], dtype=torch.int32))
    """

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
        take_scheme(type(self).__name__, qscheme, dtypes.PER_TENSOR)
        _refuse_reduced(qscheme, dtype, reduce_range)
        super().__init__(
            dtype=dtype,
            qscheme=qscheme,
            reduce_range=reduce_range,
            quant_min=quant_min,
            quant_max=quant_max,
            factory_kwargs=factory_kwargs,
            eps=eps,
            is_dynamic=is_dynamic,
            **kwargs,
        )
        where = torch.nn.factory_kwargs(factory_kwargs)
        self.register_buffer("min_val", torch.tensor(float("inf"), **where))
        self.register_buffer("max_val", torch.tensor(float("-inf"), **where))

    def forward(self, x_orig: Tensor) -> Tensor:
        """Widen the range by ``x_orig`` and return it."""
        if self._note(x_orig):
            least, most = self.min_val, self.max_val
            low, high = self._extremes(x_orig.detach(), least.dtype)
            torch.minimum(low, least, out=least)
            torch.maximum(high, most, out=most)
        return x_orig

    def _extremes(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The ends of the finite values, as `dtype`; the other way round, infinite, where there is none."""
        low, high = extremes(x, dtype)
        if odd(low, high):
            self._note_odd(x)
            finite = x[x.isfinite()]
            if finite.numel() == 0:
                return torch.full_like(low, float("inf")), torch.full_like(high, -float("inf"))
            low, high = extremes(finite, dtype)
        return low, high

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return ``(scale, zero_point)``, each of shape ``(1,)``."""
        return self._calculate_qparams(self.min_val, self.max_val)

    @torch.jit.export
    def extra_repr(self) -> str:
        """Show the range."""
        return f"min_val={self.min_val}, max_val={self.max_val}"

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forget everything seen."""
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))
        self._forget()

    def statistics(self) -> Statistics:
        """Return what was seen as a value that can be saved, merged and solved again."""
        return MinMaxStatistics(self.min_val.clone(), self.max_val.clone())


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Observes a moving average of each batch's smallest and largest value.

    Args:
        averaging_constant: weight of the newest batch, 0.01 by default; 1 keeps the last batch only.
        dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic: see ``MinMaxObserver``.

    Raises:
        ConfigError: dynamic with another averaging constant than 1, or what ``MinMaxObserver`` refuses.
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_dynamic and averaging_constant != 1:
            raise UnsupportedConfigError(
                "MovingAverageMinMaxObserver doesn't support dynamic quantization for averaging constant of "
                f"{averaging_constant}; use 1"
            )
        super().__init__(
            dtype=dtype,
            qscheme=qscheme,
            reduce_range=reduce_range,
            quant_min=quant_min,
            quant_max=quant_max,
            eps=eps,
            is_dynamic=is_dynamic,
            **kwargs,
        )
        self.averaging_constant = averaging_constant

    def forward(self, x_orig: Tensor) -> Tensor:
        """Move the averages towards the range of ``x_orig`` and return it."""
        if self._note(x_orig):
            least, most = self.min_val, self.max_val
            low, high = self._extremes(x_orig.detach(), least.dtype)
            if not is_scripting() and not _has_numbers(low):  # the same without a question
                first = least > most
                least.copy_(torch.where(first, low, least + self.averaging_constant * (low - least)))
                most.copy_(torch.where(first, high, most + self.averaging_constant * (high - most)))
                return x_orig
            if self._unset(low, high):
                return x_orig
            if not self._unset(least, most):
                low = least + self.averaging_constant * (low - least)
                high = most + self.averaging_constant * (high - most)
            least.copy_(low)
            most.copy_(high)
        return x_orig

    def statistics(self) -> MovingAverageStatistics:
        """Return the averages and how many batches are in them."""
        return MovingAverageStatistics(self.min_val.clone(), self.max_val.clone(), batches=self._batches_seen())


class PerChannelMinMaxObserver(UniformQuantizationObserverBase):
    """Observes the smallest and the largest value of each channel.

    Args:
        ch_axis: the channel dimension, 0 by default.
        dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps, is_dynamic: see the base class;
            ``qscheme`` per channel, ``torch.per_channel_affine`` by default.

    Input like ``MinMaxObserver``'s, with at least one dimension; all inputs have the same number of channels.

    Raises:
        ConfigError: a per-tensor scheme, ``is_dynamic``, or what the base class refuses.
    """

    def __init__(
        self,
        ch_axis: int = 0,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_channel_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        take_scheme(type(self).__name__, qscheme, dtypes.PER_CHANNEL)
        refuse_dynamic(type(self).__name__, is_dynamic)
        _refuse_reduced(qscheme, dtype, reduce_range)
        super().__init__(
            dtype=dtype,
            qscheme=qscheme,
            reduce_range=reduce_range,
            quant_min=quant_min,
            quant_max=quant_max,
            factory_kwargs=factory_kwargs,
            eps=eps,
            is_dynamic=is_dynamic,
            **kwargs,
        )
        where = torch.nn.factory_kwargs(factory_kwargs)
        self.ch_axis = ch_axis
        self.register_buffer("min_val", torch.tensor([], **where))
        self.register_buffer("max_val", torch.tensor([], **where))

    def forward(self, x_orig: Tensor) -> Tensor:
        """Widen the range of each channel by ``x_orig`` and return it."""
        if self._note(x_orig):
            low, high = self._channel_extremes(x_orig.detach())
            if not self._unset(self.min_val, self.max_val):
                low = torch.min(low, self.min_val)
                high = torch.max(high, self.max_val)
            self._store(low, high)
        return x_orig

    def _channel_extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = channel_extremes(x, self.ch_axis, self.min_val.dtype)
        if odd(low, high):
            self._note_odd(x)
            low, high = finite_channel_extremes(x, self.ch_axis, self.min_val.dtype)
        return low, high

    def _store(self, low: Tensor, high: Tensor) -> None:
        least, most = self.min_val, self.max_val
        if least.shape == low.shape:
            least.copy_(low)
            most.copy_(high)
        else:  # still the same buffers, but of new storage: a loaded or shared one cannot be resized
            least.set_(low.to(least.device))  # type: ignore[call-overload]
            most.set_(high.to(most.device))  # type: ignore[call-overload]

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return ``(scale, zero_point)``, each of shape ``(channels,)``."""
        low, high = self.min_val, self.max_val
        if low.numel() > 0 and odd(low, high):
            # A channel that saw no finite value has an empty range; its scale is the smallest.
            empty, low, high = low > high, low.clone(), high.clone()
            low[empty] = 0.0
            high[empty] = 0.0
        return self._calculate_qparams(low, high)

    def extra_repr(self) -> str:
        """Show the ranges."""
        return f"min_val={self.min_val}, max_val={self.max_val}"

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forget everything seen."""
        self.min_val = self.min_val.new_empty([0])
        self.max_val = self.max_val.new_empty([0])
        self._forget()

    def statistics(self) -> Statistics:
        """Return what was seen as a value that can be saved, merged and solved again."""
        return MinMaxStatistics(self.min_val.clone(), self.max_val.clone(), axis=self.ch_axis)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any) -> None:
        for name in ("min_val", "max_val"):
            key = prefix + name
            old = state_dict.pop(key + "s", None)  # the name before version 3
            if old is not None:
                state_dict[key] = old
            if key in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[key].shape))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class MovingAveragePerChannelMinMaxObserver(PerChannelMinMaxObserver):
    """Observes a moving average of each batch's smallest and largest value, channel by channel.

    Args:
        averaging_constant: weight of the newest batch, 0.01 by default.
        ch_axis, dtype, qscheme, reduce_range, quant_min, quant_max, eps, is_dynamic: see ``PerChannelMinMaxObserver``.
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        ch_axis: int = 0,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_channel_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            ch_axis=ch_axis,
            dtype=dtype,
            qscheme=qscheme,
            reduce_range=reduce_range,
            quant_min=quant_min,
            quant_max=quant_max,
            eps=eps,
            is_dynamic=is_dynamic,
            **kwargs,
        )
        self.averaging_constant = averaging_constant

    def forward(self, x_orig: Tensor) -> Tensor:
        """Move the averages of each channel towards its range in ``x_orig`` and return it."""
        if self._note(x_orig):
            low, high = self._channel_extremes(x_orig.detach())
            if not self._unset(self.min_val, self.max_val):
                old_low, old_high = self.min_val, self.max_val
                nothing, first = low > high, old_low > old_high
                low = torch.where(first, low, old_low + self.averaging_constant * (low - old_low))
                high = torch.where(first, high, old_high + self.averaging_constant * (high - old_high))
                low, high = torch.where(nothing, old_low, low), torch.where(nothing, old_high, high)
            self._store(low, high)
        return x_orig

    def statistics(self) -> MovingAverageStatistics:
        """Return the averages and how many batches are in them."""
        low, high = self.min_val.clone(), self.max_val.clone()
        return MovingAverageStatistics(low, high, axis=self.ch_axis, batches=self._batches_seen())
