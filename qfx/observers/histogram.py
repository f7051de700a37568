"""The observer that counts values and chooses the range with the least expected squared error."""

from typing import Any

import torch
from torch import Tensor

from qfx import dtypes
from qfx.frames import warn
from qfx.observers.base import UniformQuantizationObserverBase, middle_outside
from qfx.observers.bins import block_extremes, count, count_large, in_storage_order, rebin
from qfx.observers.l2_search import expected_errors, l2_range
from qfx.observers.minmax import extremes, refuse_dynamic, take_scheme
from qfx.observers.statistics import HistogramStatistics
from qfx.qparams import EPS

EXACT_BELOW = 1 << 20
"""Tensors with fewer elements are counted exactly; the middle of larger ones by a sample of an eighth of this."""


class HistogramObserver(UniformQuantizationObserverBase):
    """Counts values in equal bins of the range seen so far; chooses the range by squared error (see ``l2_search``).

    Counting is exact below 2**20 elements. Of larger tensors the tails are counted exactly (1/8192 of the values at
    each end, 1/512 for dtypes of 4 bits) and the middle by a strided sample, scaled; their smallest and largest values
    are exact. When the range grows, earlier counts move to the new bins (see ``rebin``). Infinities and NaN are left
    out (and mentioned by ``problems()``), empty tensors ignored.

    Args:
        bins: number of bins, 2048 by default.
        dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps: see the base class; ``qscheme`` per
            tensor, ``dtype`` an integer one.
        is_dynamic: not possible.

    Raises:
        ConfigError: a per-channel scheme, ``is_dynamic``, a dtype without levels, or what the base class refuses.

    Example:
        >>> observer = HistogramObserver(quant_min=0, quant_max=127)
        >>> _ = observer(torch.randn(1000))
        >>> scale, zero_point = observer.calculate_qparams()
    """

    histogram: Tensor
    seen_shape: list[int]
    seen_shapes: list[list[int]]
    seen_float32: list[bool]

    def __init__(
        self,
        bins: int = 2048,
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
        take_scheme("HistogramObserver", qscheme, dtypes.PER_TENSOR)
        refuse_dynamic("HistogramObserver", is_dynamic)
        if middle_outside(qscheme, dtype, reduce_range):
            warn(
                f"the zero point of symmetric {dtype} is 128, and a reduced range ends at 127: every value above zero "
                "is lost; use torch.qint8 or an affine scheme"
            )
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
        self.bins = bins
        self.register_buffer("histogram", torch.zeros(bins, **where))
        self.register_buffer("min_val", torch.tensor(float("inf"), **where))
        self.register_buffer("max_val", torch.tensor(float("-inf"), **where))
        # The search assumes as many levels as the dtype has, like the original: not those of quant_min .. quant_max
        self.dst_nbins = 2 ** dtypes.bits(dtype)

    def _work_out(self) -> None:
        super()._work_out()
        self._exact_below = EXACT_BELOW

    def forward(self, x_orig: Tensor) -> Tensor:
        """Count ``x_orig`` and return it."""
        if self._note(x_orig):
            x = in_storage_order(x_orig.detach())
            least, most = self._extremes(x)
            low, high = float(least.min()), float(most.max())
            if not (low > -float("inf") and high < float("inf")):
                self._note_odd(x)
                x = x[x.isfinite()]
                if x.numel() == 0:
                    return x_orig
                least, most = self._extremes(x)
                low, high = float(least.min()), float(most.max())
            self._count(x, least, most, low, high)
        return x_orig

    def _extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(x, self.min_val.dtype) if x.numel() < self._exact_below else block_extremes(x)

    def _count(self, x: Tensor, least: Tensor, most: Tensor, low: float, high: float) -> None:
        old_low, old_high = float(self.min_val), float(self.max_val)
        first = old_low > old_high
        if not first:
            low, high = min(low, old_low), max(high, old_high)
        if x.numel() < self._exact_below:
            found = count(x, self.bins, low, high)
        else:
            # The fewer levels, the more values the best range cuts off: none of them should be estimated
            tail_share = 1.0 / (32 * self.dst_nbins)
            found = count_large(x, least, most, self.bins, low, high, self._exact_below // 8, tail_share)
        if first:
            self.histogram.copy_(found)
        else:
            self.histogram.copy_(found.add_(rebin(self.histogram, old_low, old_high, low, high, self.bins)))
        self.min_val.fill_(low)
        self.max_val.fill_(high)

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return ``(scale, zero_point)``, each of shape ``(1,)``; 1 and 0, with a warning, where nothing was seen."""
        if self._unset(self.min_val, self.max_val):
            return self._calculate_qparams(self.min_val, self.max_val)
        low, high = self._non_linear_param_search()
        return self._calculate_qparams(low, high)

    # The names the original has for its steps, to be called or overridden.
    @torch.jit.unused
    def _upscale_histogram(
        self, histogram: Tensor, orig_min: Tensor, orig_max: Tensor, update_min: Tensor, update_max: Tensor
    ) -> Tensor:
        """Counts of one range in the bins of another that contains it."""
        low, high, new_low, new_high = map(float, (orig_min, orig_max, update_min, update_max))
        return rebin(histogram, low, high, new_low, new_high, self.bins)

    @torch.jit.unused
    def _combine_histograms(
        self,
        orig_hist: Tensor,
        orig_min: Tensor,
        orig_max: Tensor,
        update_hist: Tensor,
        update_min: Tensor,
        update_max: Tensor,
    ) -> Tensor:
        """Both counts in the bins of the range that contains both."""
        whole = torch.minimum(orig_min, update_min), torch.maximum(orig_max, update_max)
        return self._upscale_histogram(orig_hist, orig_min, orig_max, *whole) + self._upscale_histogram(
            update_hist, update_min, update_max, *whole
        )

    @torch.jit.unused
    def reset_histogram(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> None:
        """Forget the counts, and count ``x`` in the bins of a range that contains it."""
        self.reset_min_max_vals()
        self._count(x, min_val, max_val, float(min_val), float(max_val))

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        return l2_range(self.histogram, self.min_val, self.max_val, self.dst_nbins)

    @torch.jit.unused
    def _compute_quantization_error(self, next_start_bin: int, next_end_bin: int) -> float:
        """The summed squared error of quantizing the values of these bins and all in between to as many levels."""
        width = (float(self.max_val) - float(self.min_val)) / self.bins
        ends = torch.tensor([next_start_bin, next_end_bin])
        return float(expected_errors(self.histogram, ends[:1], ends[1:], self.dst_nbins)) * width * width

    def extra_repr(self) -> str:
        """Show the range."""
        return f"min_val={self.min_val}, max_val={self.max_val}"

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forget everything seen."""
        self.histogram.zero_()
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))
        self._forget()

    def statistics(self) -> HistogramStatistics:
        """Return the counts as a value that can be saved, merged and solved again."""
        return HistogramStatistics(self.min_val.clone(), self.max_val.clone(), histogram=self.histogram.clone())
