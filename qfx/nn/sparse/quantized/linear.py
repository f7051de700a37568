"""Quantized linear layers on weights with blocks of zeros.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting

from qfx.kernels.packing import PackedSpec
from qfx.nn.errors import InputError, ModuleTypeError, UnsupportedError
from qfx.nn.quantized.module import (
    PackedModule,
    WeightedQuantizedModule,
    blank_weight,
    empty,
    made_empty,
)
from qfx.nn.quantized.saved import Loading, Saved, SavedScale
from qfx.nn.weights import observed_weight, output_qparams


class LinearPackedParams(PackedModule, Saved):
    """Weight, bias and block sizes of a sparse linear layer; a module of its own because the state dict has always had
    that level.

    Args:
        row_block_size, col_block_size: the weight has blocks of zeros of that size.
        dtype: ``torch.qint8``.
        engine: who packs: fbgemm, whose packed weight the static kernel takes, or qnnpack, for the dynamic one. None
            means fbgemm.

    Raises:
        UnsupportedError: another dtype.
    """

    __constants__ = ["_engine_given", "dtype", "engine"]  # noqa: RUF012
    _version = 1
    _bias: Tensor | None

    def __init__(
        self,
        row_block_size: int = 1,
        col_block_size: int = 4,
        dtype: torch.dtype = torch.qint8,
        *,
        engine: str | None = None,
    ) -> None:
        super().__init__()
        if dtype != torch.qint8:
            raise UnsupportedError(f"a sparse linear layer stores torch.qint8, not {dtype}")
        self.dtype = dtype
        self._choose_engine(engine or "fbgemm")
        self._rows, self._columns = row_block_size, col_block_size
        if not made_empty():
            self._hold(blank_weight(1, 1), None)

    def _get_name(self) -> str:
        return "SparseQuantizedLinearPackedParams"

    def _packed_spec(self) -> PackedSpec:
        block = (self._rows, self._columns)
        return PackedSpec("linear_sparse", self._weight, self._bias, block=block, engine=self.engine)

    @torch.jit.export
    def set_weight_bias(  # type: ignore[override]
        self, weight: Tensor, bias: Tensor | None, row_block_size: int | None, col_block_size: int | None
    ) -> None:
        """Replace weight, bias and block sizes, and pack them."""
        if is_scripting():
            assert row_block_size is not None  # TorchScript learns it from this
            assert col_block_size is not None
            self._rows = row_block_size
            self._columns = col_block_size
            self._weight = weight
            self._bias = bias
            self._script_repack()
        else:
            if row_block_size is None or col_block_size is None:
                raise InputError(
                    f"block sizes must not be None, got {row_block_size} rows and {col_block_size} columns"
                )
            self._rows, self._columns = row_block_size, col_block_size
            self._hold(weight, bias)

    @torch.jit.export
    def _weight_bias(self) -> tuple[Tensor, Tensor | None, int, int]:  # type: ignore[override]
        return self._weight, self._bias, self._rows, self._columns

    def _script_repack(self) -> None:
        self._packed_params = torch.ops.sparse.qlinear_prepack(self._weight, self._bias, self._rows, self._columns)

    def forward(self, x: Tensor) -> Tensor:
        """Do nothing: the layer that owns this module computes."""
        return x

    def __repr__(self) -> str:
        return repr(self._weight_bias())

    # State dict: dtype and _packed_params = (weight, bias, rows, columns).

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "dtype"] = self.dtype
        destination[prefix + "_packed_params"] = self._weight_bias()

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        self.dtype = loading.take("dtype", self.dtype)
        weight, bias, rows, columns = loading.take("_packed_params", self._weight_bias())
        if loading.fits("_packed_params", weight, self._weight.shape):
            self._rows, self._columns = rows, columns
            self._hold(weight, bias)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor | None, int, int, bool]:
        """The state without the packed weight."""
        if is_scripting():
            return (self._weight, self._bias, self._rows, self._columns, self.training)
        else:
            return self._python_state()  # type: ignore[return-value]

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor | None, int, int, bool]) -> None:
        """Take the state and pack the weight for this machine."""
        if is_scripting():
            self._weight = state[0]
            self._bias = state[1]
            self._rows = state[2]
            self._columns = state[3]
            self.training = state[4]
            self._script_repack()
        else:
            self._restore(state)  # type: ignore[arg-type]


class SparseLinear(WeightedQuantizedModule):
    """What the static and the dynamic layer share: sizes, weight and conversion."""

    _version = 1
    _FLOAT_MODULE: Any = nn.Linear
    _ENGINE = ""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        row_block_size: int,
        col_block_size: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._packed_params = LinearPackedParams(row_block_size, col_block_size, dtype, engine=self._ENGINE)
        if not made_empty():
            blank = blank_weight(out_features, in_features)
            self._packed_params._hold(blank, torch.zeros(out_features) if bias else None)

    def __repr__(self) -> str:
        return f"{self._get_name()}({self.extra_repr()})"

    def _weight_bias(self) -> tuple[Tensor, Tensor | None, int, int]:
        return self._packed_params._weight_bias()

    def weight(self) -> Tensor:
        """The int8 weight, a quantized tensor of shape (out_features, in_features)."""
        return self._weight_bias()[0]

    def bias(self) -> Tensor | None:
        """The float bias, or None."""
        return self._weight_bias()[1]

    def set_weight_bias(
        self, w: Tensor, b: Tensor | None, row_block_size: int | None, col_block_size: int | None
    ) -> None:
        """Replace weight (``torch.qint8``), bias and block sizes, and pack them."""
        self.out_features, self.in_features = w.shape
        self._packed_params.set_weight_bias(w, b, row_block_size, col_block_size)

    @classmethod
    def _of(cls, mod: Any, weight: Tensor, bias: Tensor | None, block: tuple[int, int]) -> Any:
        if weight.qscheme() == torch.per_tensor_affine:
            shifted = weight.q_zero_point() != 0
        else:
            shifted = bool(weight.q_per_channel_zero_points().any())
        if shifted:
            raise ModuleTypeError(
                f"{cls.__name__}.from_float: all weight zero points must be 0; use a symmetric scheme"
            )
        with empty():
            made = cls(mod.in_features, mod.out_features, *block)
        made._packed_params._hold(weight, bias)
        return made


class Linear(SparseLinear, SavedScale):
    """Quantized ``nn.Linear`` on a weight with blocks of zeros: (..., in) of ``torch.quint8`` to (..., out).

    fbgemm alone has the kernel, which packs whatever engine is selected in torch; a script is loaded while fbgemm is.

    Args:
        in_features, out_features: sizes.
        row_block_size, col_block_size: the weight has blocks of zeros of that size; fbgemm takes 1 and 4.
        bias: whether there is a (float) bias.
        dtype: of the weight, ``torch.qint8``.

    A new module has zero weights, ``scale`` 1.0 and ``zero_point`` 0.

    Raises:
        UnsupportedError: another dtype.
        KernelError: the engine does not take such blocks.
    """

    _ENGINE = "fbgemm"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        row_block_size: int,
        col_block_size: int,
        bias: bool = True,
        dtype: torch.dtype = torch.qint8,
    ) -> None:
        super().__init__(in_features, out_features, row_block_size, col_block_size, bias, dtype)
        self.scale, self.zero_point = 1.0, 0

    @classmethod
    def _get_name(cls) -> str:
        return "SparseQuantizedLinear"

    def extra_repr(self) -> str:
        """Sizes and qparams."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, scale={self.scale}, "
            f"zero_point={self.zero_point}, qscheme={self.weight().qscheme()}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Multiply a ``torch.quint8`` input of shape (..., in_features)."""
        return torch.ops.sparse.qlinear(  # type: ignore[no-any-return]
            x, self._packed_params._packed_params, self.scale, self.zero_point
        )

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize an observed ``nn.Linear`` that was made sparse.

        Args:
            mod: has a ``qconfig``, a calibrated ``activation_post_process`` and ``sparse_params`` with a
                ``sparse_block_shape``, as a sparsifier leaves them. It is not changed.
            use_precomputed_fake_quant: take the weight observer's range as it is.

        Raises:
            ModuleTypeError: another class, something is missing, or a weight zero point is not 0.
        """
        shape: Any = getattr(mod, "sparse_params", {}).get("sparse_block_shape")
        if type(mod) is nn.Linear and not (isinstance(shape, (tuple, list)) and len(shape) == 2):
            raise ModuleTypeError(
                f"{cls._get_name()}.from_float needs sparse_params['sparse_block_shape'] of two sizes on the Linear, "
                f"got {shape!r}; keep it when squashing the mask: squash_mask(params_to_save=('sparse_block_shape',))"
            )
        linear, weight, bias = observed_weight(cls, mod, (nn.Linear,), use_precomputed_fake_quant)
        made = cls._of(linear, weight, bias, tuple(shape))
        made.scale, made.zero_point = output_qparams(mod, cls.__name__)
        return made
