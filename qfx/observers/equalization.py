"""Observers of input-weight equalization: ranges by column of a layer's input and of its weight, and the scale between.

Columns of an input differ in range, and one scale for all of them wastes codes on the narrow ones. Multiplying a column
by a factor and dividing the weights that read it by the same computes the same layer; with the factor
``sqrt(weight range / input range)`` of each column both have the same spread of ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.frames import warn
from qfx.observers.factory import with_args
from qfx.observers.minmax import PerChannelMinMaxObserver

_BY_COLUMN = {
    torch.per_tensor_affine: torch.per_channel_affine,
    torch.per_tensor_symmetric: torch.per_channel_symmetric,
}


class _Columns(nn.Module):
    """The range of every column (axis 1) of what it sees, and the scale that was worked out from it."""

    equalization_scale: Tensor
    watches: ClassVar[str]

    def __init__(
        self,
        dtype: torch.dtype,
        qscheme: torch.qscheme,
        quant_min: int | None,
        quant_max: int | None,
        factory_kwargs: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.dtype, self.qscheme, self.ch_axis = dtype, qscheme, 1
        self._observer = PerChannelMinMaxObserver(
            ch_axis=1,
            dtype=dtype,
            qscheme=_BY_COLUMN.get(qscheme, qscheme),
            quant_min=quant_min,
            quant_max=quant_max,
            factory_kwargs=factory_kwargs,
        )
        self.equalization_scale = torch.tensor(1)

    def forward(self, x: Tensor) -> Tensor:
        """Widen the ranges and return what it was given.

        Raises:
            ValueError: fewer than two or more than five dimensions.
        """
        if not 2 <= x.ndim <= 5:
            raise ValueError(
                f"{type(self).__name__} only supports Linear and Conv layers, so {self.watches} of 2 to 5 dimensions; "
                f"got {x.ndim}"
            )
        return self._observer(x)  # type: ignore[no-any-return]

    def set_equalization_scale(self, equalization_scale: Tensor) -> None:
        """Set the factor of each column; a single 1 stands for none."""
        if equalization_scale.nelement() == 1 and equalization_scale == torch.tensor(1):
            return
        self.equalization_scale = equalization_scale

    def minmax(self) -> tuple[Tensor, Tensor]:
        """The smallest and largest value of each column."""
        return self._observer.min_val, self._observer.max_val

    with_args = classmethod(with_args)


class InputEqualizationObserver(_Columns):
    """Watches the columns of a layer's input.

    Args:
        dtype: of the observer of the whole input, ``torch.quint8`` by default.
        qscheme: of that, per tensor; ``torch.per_tensor_affine`` by default.
        quant_min, quant_max, factory_kwargs: as for other observers.

    Input of two to five dimensions, columns along axis 1.

    Raises:
        TypeError: a scheme that is not per tensor.

    Example:
        >>> observer = InputEqualizationObserver()
        >>> _ = observer(torch.tensor([[0.0, 1.0], [4.0, 3.0]]))
        >>> observer.get_input_minmax()
        (tensor([0., 1.]), tensor([4., 3.]))
    """

    watches = "inputs"

    def __init__(
        self,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if qscheme not in _BY_COLUMN:
            raise TypeError(f"Input qscheme must be per-tensor, got {qscheme}")
        super().__init__(dtype, qscheme, quant_min, quant_max, factory_kwargs)
        self.equalization_shape: list[int] = []

    @property
    def input_obs(self) -> PerChannelMinMaxObserver:
        """What watches the columns."""
        return self._observer

    def forward(self, x_orig: Tensor) -> Tensor:
        """Widen the ranges and return the input.

        Raises:
            ValueError: fewer than two or more than five dimensions.
        """
        seen = super().forward(x_orig)
        self.equalization_shape = [1, x_orig.size(1)] + [1] * (x_orig.ndim - 2)
        return seen

    def get_input_minmax(self) -> tuple[Tensor, Tensor]:
        """The smallest and largest value of each column."""
        return self.minmax()

    def set_equalization_scale(self, equalization_scale: Tensor) -> None:
        """Set the factor of each column, which then has the shape to be multiplied with an input."""
        super().set_equalization_scale(equalization_scale)
        if self.equalization_scale.nelement() > 1:
            self.equalization_scale = torch.reshape(self.equalization_scale, self.equalization_shape)

    def calculate_scaled_minmax(self) -> tuple[Tensor | None, Tensor | None]:
        """The range of the whole input once its columns are scaled; two Nones, and a warning, without a scale."""
        if self.equalization_scale.nelement() == 1 and self.equalization_scale == torch.tensor(1):
            warn("Must call calculate_equalization_scale before calling calculate_scaled_minmax: there is no scale yet")
            return None, None
        low, high = self.minmax()
        scale = self.equalization_scale.reshape(low.shape)
        return (low * scale).min(), (high * scale).max()


class WeightEqualizationObserver(_Columns):
    """Watches the columns of a layer's weight: what it multiplies each column of the input with.

    Args:
        dtype: ``torch.qint8`` by default.
        qscheme: per tensor or per channel; ``torch.per_tensor_affine`` by default.
        quant_min, quant_max, factory_kwargs: as for other observers.

    Weights of two to five dimensions, ``(out, in, ...)``.
    """

    watches = "weights"

    def __init__(
        self,
        dtype: torch.dtype = torch.qint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dtype, qscheme, quant_min, quant_max, factory_kwargs)

    @property
    def weight_col_obs(self) -> PerChannelMinMaxObserver:
        """What watches the columns."""
        return self._observer

    def get_weight_col_minmax(self) -> tuple[Tensor, Tensor]:
        """The smallest and largest weight of each column."""
        return self.minmax()


class _Pair(NamedTuple):
    input_activation: Callable[[], Any]
    weight: Callable[[], Any]


class EqualizationQConfig(_Pair):
    """How a layer is equalized: what makes the observer of its input, and that of its weight; ``nn.Identity`` for none.

    Raises:
        ValueError: an observer instead of what makes one.

    Example:
        >>> config = EqualizationQConfig(InputEqualizationObserver, WeightEqualizationObserver)
    """

    __slots__ = ()

    def __new__(
        cls, input_activation: Callable[[], Any] = nn.Identity, weight: Callable[[], Any] = nn.Identity
    ) -> EqualizationQConfig:
        """The pair."""
        if isinstance(input_activation, nn.Module) or isinstance(weight, nn.Module):
            raise ValueError(
                "EqualizationQConfig received observer instance, please pass observer class instead: "
                "MyObserver.with_args(x=1) makes one that has arguments"
            )
        return super().__new__(cls, input_activation, weight)


def calculate_equalization_scale(
    input_obs: InputEqualizationObserver, weight_obs: WeightEqualizationObserver
) -> Tensor:
    """The factor of each column: ``sqrt(weight range / input range)``; 1 where one of them is 0.

    Returns:
        A tensor of one number per column; a single 1, and a warning, where an observer saw nothing.

    Raises:
        ConfigError: input and weight have different numbers of columns.
    """
    (low_in, high_in), (low_w, high_w) = input_obs.minmax(), weight_obs.minmax()
    if not low_in.nelement() or not low_w.nelement():
        warn("an equalization observer saw nothing, so its layer stays as it is; run the prepared model on data first")
        return torch.tensor(1)
    if low_in.shape != low_w.shape:
        raise ConfigError(
            f"Input and Weight must have the same column dimension. Found {low_in.shape} and {low_w.shape} shapes "
            "instead; grouped convolutions cannot be equalized"
        )
    factor = torch.sqrt((high_w - low_w) / (high_in - low_in))
    return torch.where(torch.isfinite(factor) & (factor > 0), factor, 1.0)


input_equalization_observer = InputEqualizationObserver.with_args(
    dtype=torch.quint8, qscheme=torch.per_tensor_symmetric
)
weight_equalization_observer = WeightEqualizationObserver.with_args(
    dtype=torch.qint8, qscheme=torch.per_channel_symmetric
)
default_equalization_qconfig = EqualizationQConfig(
    input_activation=input_equalization_observer, weight=weight_equalization_observer
)
