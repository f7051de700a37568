"""Quantized embeddings: rows of 8- or 4-bit codes with a float scale and offset each, looked up into floats.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.kernels.plain import put_together, take_apart
from qfx.nn.errors import InputError, ModuleTypeError, UnsupportedError
from qfx.nn.quantized.saved import Loading, Saved
from qfx.nn.weights import quantize_weight
from qfx.observers import default_float_qparams_observer

_DTYPES = (torch.quint8, torch.quint4x2)


def _blank_rows(num_embeddings: int, embedding_dim: int, dtype: torch.dtype) -> Tensor:
    return torch.quantize_per_channel(
        torch.zeros(num_embeddings, embedding_dim), torch.ones(num_embeddings), torch.zeros(num_embeddings), 0, dtype
    )


class EmbeddingPackedParams(Saved):
    """The packed table; a module of its own because the state dict has always had that level.

    This layout has no engine, and packing what was unpacked changes nothing: nothing else needs to be kept.

    Args:
        num_embeddings, embedding_dim: rows and columns.
        dtype: ``torch.quint8`` or ``torch.quint4x2``.

    Raises:
        UnsupportedError: another dtype.
    """

    __constants__ = ["dtype"]  # noqa: RUF012
    _version = 1

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype = torch.quint8) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise UnsupportedError(
                f"Unsupported dtype on quantized embedding! Supports quint8 and quint4x2. Got dtype: {dtype}"
            )
        self.dtype = dtype
        self.set_weight(_blank_rows(num_embeddings, embedding_dim, dtype))

    @torch.jit.export
    def set_weight(self, weight: Tensor) -> None:
        """Replace the table by a per-row quantized tensor."""
        self._packed_weight = torch.ops.quantized.embedding_bag_prepack(weight)

    @torch.jit.export
    def _weight(self) -> Tensor:
        return torch.ops.quantized.embedding_bag_unpack(self._packed_weight)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Do nothing: the embedding that owns this module looks up."""
        return x

    def __repr__(self) -> str:
        return repr(self._weight())

    def __getstate__(self) -> dict[str, Any]:
        """The ``__dict__`` with the plain quantized table instead of the packed one."""
        state = self.__dict__.copy()
        del state["_packed_weight"]
        return state | {"_unpacked_weight": take_apart(self._weight())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, and pack the table; the original pickled it packed."""
        state = dict(state)
        weight = put_together(state.pop("_unpacked_weight")) if "_unpacked_weight" in state else None
        super().__setstate__(state)
        if weight is not None:
            self.set_weight(weight)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "dtype"] = self.dtype
        destination[prefix + "_packed_weight"] = self._weight()

    def _take_saved(self, loading: Loading) -> None:
        super()._take_saved(loading)
        self.dtype = loading.take("dtype", self.dtype)
        present = self._weight()
        weight = loading.take("_packed_weight", present)
        if loading.fits("_packed_weight", weight, present.shape):
            self.set_weight(weight)


class Embedding(nn.Module):
    """Quantized ``nn.Embedding``: integer indices in, float rows out.

    Args:
        num_embeddings, embedding_dim: rows and columns of the table.
        padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: accepted as ``nn.Embedding`` has them; they
            concern training.
        _weight: the table, quantized per row with float qparams; zeros if None.
        dtype: of the table, ``torch.quint8`` or ``torch.quint4x2``.

    Raises:
        InputError: ``_weight`` has another shape.

    Example:
        >>> Embedding(10, 12)(torch.tensor([9, 6, 5])).shape
        torch.Size([3, 12])
    """

    __jit_unused_properties__ = ["dtype"]  # noqa: RUF012
    _version = 1
    _FLOAT_MODULE: Any = nn.Embedding

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        dtype: torch.dtype = torch.quint8,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self._packed_params = EmbeddingPackedParams(num_embeddings, embedding_dim, dtype)
        if _weight is not None:
            if tuple(_weight.shape) != (num_embeddings, embedding_dim):
                raise InputError(
                    f"{type(self).__name__}: the weight is {tuple(_weight.shape)}, "
                    f"not {(num_embeddings, embedding_dim)}"
                )
            self._packed_params.set_weight(_weight)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the table."""
        return self._packed_params.dtype

    def forward(self, indices: Tensor) -> Tensor:
        """Look up rows: indices of any shape to floats of that shape plus (embedding_dim,)."""
        if self._packed_params.dtype == torch.quint4x2:
            return torch.ops.quantized.embedding_4bit(self._packed_params._packed_weight, indices)  # type: ignore[no-any-return]
        return torch.ops.quantized.embedding_byte(self._packed_params._packed_weight, indices)  # type: ignore[no-any-return]

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Sizes, dtype and scheme."""
        return (
            f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}, "
            f"dtype={self._packed_params.dtype}, qscheme={self.weight().qscheme()}"
        )

    def __repr__(self) -> str:
        return f"{self._get_name()}({self.extra_repr()})"

    def set_weight(self, w: Tensor) -> None:
        """Replace the table by a per-row quantized tensor of float qparams."""
        self._packed_params.set_weight(w)

    def weight(self) -> Tensor:
        """The table, a quantized tensor."""
        return self._packed_params._weight()

    @classmethod
    def _quantized_table(cls, mod: Any, use_precomputed_fake_quant: bool) -> tuple[Tensor, torch.dtype]:
        if hasattr(mod, "weight_fake_quant"):
            observer = mod.weight_fake_quant
        else:
            if type(mod) is not cls._FLOAT_MODULE:
                raise ModuleTypeError(
                    f"nnq.{cls.__name__}.from_float only works for {cls._FLOAT_MODULE.__name__} "
                    f"but got: {type(mod).__name__}"
                )
            if not hasattr(mod, "qconfig"):
                raise ModuleTypeError(
                    f"{cls.__name__} input float module must have qconfig defined; set "
                    "float_qparams_weight_only_qconfig, or None for it"
                )
            given = mod.qconfig is not None and mod.qconfig.weight is not None
            observer = mod.qconfig.weight() if given else default_float_qparams_observer()
        if observer.qscheme != torch.per_channel_affine_float_qparams or observer.dtype not in _DTYPES:
            raise ModuleTypeError(
                f"{cls.__name__} needs a weight observer of torch.quint8 or torch.quint4x2 and "
                "per_channel_affine_float_qparams, as float_qparams_weight_only_qconfig has it; "
                f"got {observer.dtype}, {observer.qscheme}"
            )
        if not use_precomputed_fake_quant:
            observer(mod.weight)
        return quantize_weight(mod.weight.detach().float(), observer), observer.dtype

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize an ``nn.Embedding`` with a qconfig of float qparams (None for 8 bits), or its QAT form.

        Raises:
            ModuleTypeError: another class, or a weight observer for something else.
        """
        table, dtype = cls._quantized_table(mod, use_precomputed_fake_quant)
        return cls(mod.num_embeddings, mod.embedding_dim, _weight=table, dtype=dtype)

    @classmethod
    def from_reference(cls, ref_embedding: Any) -> Any:
        """Pack the table of a reference embedding."""
        ref = ref_embedding
        return cls(ref.num_embeddings, ref.embedding_dim, _weight=ref.get_quantized_weight(), dtype=ref.weight_dtype)


class EmbeddingBag(Embedding):
    """Quantized ``nn.EmbeddingBag``: bags of indices in, one float row per bag out.

    Args:
        num_embeddings, embedding_dim: rows and columns of the table.
        max_norm, norm_type, scale_grad_by_freq, sparse: accepted as ``nn.EmbeddingBag`` has them; they concern
            training.
        mode: ``"sum"``, or ``"mean"``, which divides the kernel's sums.
        _weight: the table, quantized per row with float qparams; zeros if None.
        include_last_offset: whether ``offsets`` ends with the total length.
        dtype: of the table, ``torch.quint8`` or ``torch.quint4x2``.
        padding_idx: an index that counts for nothing; its row in the table is to be zeros.

    Raises:
        ConfigError: another mode. (The original takes any, and sums all the same.)
    """

    _FLOAT_MODULE: Any = nn.EmbeddingBag

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "sum",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        dtype: torch.dtype = torch.quint8,
        *,
        padding_idx: int | None = None,
    ) -> None:
        if mode not in ("sum", "mean"):
            raise ConfigError(
                f"a quantized EmbeddingBag sums its bags or takes their mean; mode={mode!r} has no kernel, leave the "
                "module float"
            )
        super().__init__(num_embeddings, embedding_dim, _weight=_weight, dtype=dtype)
        self.mode = mode
        self.pruned_weights = False
        self.include_last_offset = include_last_offset
        self.padding_idx: int | None = padding_idx

    def forward(
        self,
        indices: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
        compressed_indices_mapping: Tensor | None = None,
    ) -> Tensor:
        """Sum the rows of each bag, or take their mean; 1d indices need ``offsets``, 2d ones are a bag per line."""
        sums = self._sums(indices, offsets, per_sample_weights, compressed_indices_mapping)
        if self.mode == "sum":
            return sums
        return sums / _counts(indices, offsets, per_sample_weights, self.include_last_offset, self.padding_idx)

    def _sums(
        self,
        indices: Tensor,
        offsets: Tensor | None,
        per_sample_weights: Tensor | None,
        compressed_indices_mapping: Tensor | None,
    ) -> Tensor:
        if self._packed_params.dtype == torch.quint4x2:
            return torch.ops.quantized.embedding_bag_4bit(  # type: ignore[no-any-return]
                self._packed_params._packed_weight, indices, offsets, False, 0, self.pruned_weights, per_sample_weights,
                compressed_indices_mapping, self.include_last_offset,
            )  # fmt: skip
        return torch.ops.quantized.embedding_bag_byte(  # type: ignore[no-any-return]
            self._packed_params._packed_weight, indices, offsets, False, 0, self.pruned_weights, per_sample_weights,
            compressed_indices_mapping, self.include_last_offset,
        )  # fmt: skip

    @classmethod
    def from_float(cls, mod: Any, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantize an ``nn.EmbeddingBag`` with a qconfig of float qparams, or its QAT form; see
        :meth:`Embedding.from_float`."""
        table, dtype = cls._quantized_table(mod, use_precomputed_fake_quant)
        return cls._like(mod, table, dtype)

    @classmethod
    def from_reference(cls, ref_embedding: Any) -> Any:
        """Pack the table of a reference embedding bag."""
        return cls._like(ref_embedding, ref_embedding.get_quantized_weight(), ref_embedding.weight_dtype)

    @classmethod
    def _like(cls, bag: Any, table: Tensor, dtype: torch.dtype) -> Any:
        if bag.padding_idx is not None:
            table = _with_zeros(table, bag.padding_idx)
        return cls(
            bag.num_embeddings,
            bag.embedding_dim,
            mode=bag.mode,
            _weight=table,
            include_last_offset=bag.include_last_offset,
            dtype=dtype,
            padding_idx=bag.padding_idx,
        )


def _with_zeros(table: Tensor, row: int) -> Tensor:
    """A quantized table with zeros in one row, and what it had in all others."""
    weight, scales, zero_points = table.dequantize(), table.q_per_channel_scales(), table.q_per_channel_zero_points()
    weight[row] = 0
    zero_points[row] = 0
    return torch.quantize_per_channel(weight, scales, zero_points, 0, table.dtype)


@torch.fx.wrap
def _counts(
    indices: Tensor,
    offsets: Tensor | None,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None,
) -> Tensor:
    """How many rows are in each bag, (bags, 1), at least 1: the mean of none is zeros."""
    if per_sample_weights is not None:
        raise NotImplementedError("per_sample_weights are for mode='sum'; the mean of weighted rows is not defined")
    counted = torch.ones_like(indices) if padding_idx is None else (indices != padding_idx).long()
    if offsets is None:
        return counted.sum(1, keepdim=True).clamp(min=1)
    before = torch.cat([torch.zeros_like(counted[:1]), counted.cumsum(0)])
    if include_last_offset:
        starts, ends = offsets[:-1], offsets[1:]
    else:
        starts, ends = offsets, torch.cat([offsets[1:], torch.full_like(offsets[:1], indices.numel())])
    return (before[ends.long()] - before[starts.long()]).clamp(min=1).unsqueeze(1)
