"""Observers that gather nothing: fixed parameters, placeholders, and one that keeps every tensor for debugging."""

from typing import Any

import torch
from torch import Tensor
from torch._jit_internal import is_scripting

from qfx.errors import ConfigError, ObservationError
from qfx.frames import warn
from qfx.observers.base import ObserverBase
from qfx.qparams import EPS, QParams


class FixedQParamsObserver(ObserverBase):
    """Has its parameters given: for outputs of a known range, such as a sigmoid's.

    Args:
        scale: the scale.
        zero_point: the code of 0.0.
        dtype: ``torch.quint8`` by default.
        qscheme: ``torch.per_tensor_affine`` by default.
        quant_min: smallest code, 0 by default.
        quant_max: largest code, 255 by default.
        is_dynamic: not possible.

    Raises:
        ConfigError: ``is_dynamic``.

    Example:
        >>> FixedQParamsObserver(1 / 256, 0).calculate_qparams()
        (tensor([0.0039]), tensor([0], dtype=torch.int32))
    """

    scale: Tensor
    zero_point: Tensor
    seen_shape: list[int]
    seen_shapes: list[list[int]]
    seen_float32: list[bool]

    def __init__(
        self,
        scale: float,
        zero_point: int,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int = 0,
        quant_max: int = 255,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_dynamic:
            raise ConfigError("FixedQParamsObserver cannot be dynamic: its scale is given")
        super().__init__(dtype=dtype, is_dynamic=is_dynamic, **kwargs)
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.qscheme = qscheme
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int))

    def forward(self, X: Tensor) -> Tensor:
        """Note the shape of ``X`` and return it."""
        self._see(X)
        return X

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the given ``(scale, zero_point)``, each of shape ``(1,)``."""
        return self.scale, self.zero_point

    def qparams(self) -> QParams:
        """Return the given parameters as one value."""
        return QParams(self.scale, self.zero_point, None, self.dtype, self.quant_min, self.quant_max, self.qscheme)


class _NoQParams(ObserverBase):
    """An observer without statistics: returns its input, has no parameters to give."""

    seen_shape: list[int]
    seen_shapes: list[list[int]]
    seen_float32: list[bool]

    def forward(self, x: Tensor) -> Tensor:
        """Note the shape of ``x`` and return it."""
        self._see(x)
        return x

    @torch.jit.export
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Not possible.

        Raises:
            ObservationError: always; this observer saw no range.
        """
        if is_scripting():
            raise RuntimeError("calculate_qparams should not be called for an observer that gathers no range")
        else:
            raise ObservationError(
                f"calculate_qparams should not be called for {type(self).__name__}, which gathers no range; "
                "use e.g. MinMaxObserver"
            )


class PlaceholderObserver(_NoQParams):
    """Carries a configuration where no range is needed: float16, dynamic quantization, "leave it float".

    Args:
        dtype: ``torch.float32`` by default.
        custom_op_name: name of an operator that needs no observation.
        compute_dtype: if given, means ``is_dynamic=True``, with a DeprecationWarning; use that instead.
        quant_min: smallest code of the dynamic quantization.
        quant_max: largest code.
        qscheme: ``torch.per_tensor_affine`` where ``None``.
        eps: the smallest scale; ``2**-23`` where ``None``.
        is_dynamic: choose the scale anew for each input.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        custom_op_name: str = "",
        compute_dtype: torch.dtype | None = None,
        quant_min: int | None = None,
        quant_max: int | None = None,
        qscheme: torch.qscheme | None = None,
        eps: float | None = None,
        is_dynamic: bool = False,
    ) -> None:
        if compute_dtype:
            warn("compute_dtype is an old name; pass is_dynamic=True", DeprecationWarning)
        super().__init__(dtype=dtype, is_dynamic=is_dynamic or bool(compute_dtype))
        self.qscheme = torch.per_tensor_affine if qscheme is None else qscheme
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.eps = EPS if eps is None else eps
        self.custom_op = custom_op_name

    @torch.jit.export
    def extra_repr(self) -> str:
        """Show dtype and whether dynamic."""
        return f"dtype={self.dtype}, is_dynamic={self.is_dynamic}"


class NoopObserver(_NoQParams):
    """Carries a dtype, for casts that need no range.

    Args:
        dtype: ``torch.float16`` by default.
        custom_op_name: name of an operator that needs no observation.
    """

    def __init__(self, dtype: torch.dtype = torch.float16, custom_op_name: str = "") -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.custom_op = custom_op_name


class ReuseInputObserver(_NoQParams):
    """Says that an output has the parameters of its input, as for a reshape: the input's observer is used for both."""

    def __init__(self) -> None:
        super().__init__(torch.quint8, is_dynamic=False)


class FollowingObserver(_NoQParams):
    """Stands behind a value picked out of another one: its parameters are that one's, whose observer saw it already.

    Args:
        dtype: of the other value's observer.
    """


class RecordingObserver(_NoQParams):
    """Keeps a copy of every tensor it sees: for debugging, costs their memory.

    Args:
        dtype: ``torch.quint8`` by default.
    """

    tensor_val: list[Tensor]
    seen_shape: list[int]
    seen_shapes: list[list[int]]
    seen_float32: list[bool]

    def __init__(self, dtype: torch.dtype = torch.quint8) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.tensor_val = []

    def forward(self, x: Tensor) -> Tensor:
        """Keep a copy of ``x`` and return it."""
        self._see(x)
        self.tensor_val.append(x.clone())
        return x

    @torch.jit.export
    def get_tensor_value(self) -> list[Tensor]:
        """Return the tensors seen so far, in order."""
        return self.tensor_val
