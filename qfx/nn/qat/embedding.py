"""Embedding tables for quantization-aware training.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import ConfigError
from qfx.nn.qat.module import QATModule


class _Table(QATModule):
    """Both tables have one scale and one float zero point a row, which is what their kernels take."""

    _TABLE = ""

    def _take_qconfig(self, qconfig: Any, device: Any = None) -> None:
        super()._take_qconfig(qconfig, device)
        scheme = self.weight_fake_quant.qscheme
        if scheme != torch.per_channel_affine_float_qparams:
            raise ConfigError(
                f"{self._TABLE} weights requires a qscheme of torch.per_channel_affine_float_qparams; got {scheme}: "
                "use default_embedding_qat_qconfig"
            )


class Embedding(_Table, nn.Embedding):
    """``nn.Embedding`` whose table is rounded in every forward: its arguments, then ``qconfig``.

    Raises:
        ConfigError: no ``qconfig``, or one whose weights are not of ``torch.per_channel_affine_float_qparams``.
    """

    _FLOAT_MODULE = nn.Embedding
    _TABLE = "Embedding"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        device: Any = None,
        dtype: Any = None,
        qconfig: Any = None,
    ) -> None:
        super().__init__(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._take_qconfig(qconfig, device)

    def forward(self, input: Tensor) -> Tensor:
        """Look rows up in the rounded table."""
        return F.embedding(
            input,
            self.weight_fake_quant(self.weight),
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )


class EmbeddingBag(_Table, nn.EmbeddingBag):
    """``nn.EmbeddingBag`` whose table is rounded in every forward: its arguments, then ``qconfig``.

    Raises:
        ConfigError: no ``qconfig``, or one whose weights are not of ``torch.per_channel_affine_float_qparams``.
    """

    _FLOAT_MODULE = nn.EmbeddingBag
    _TABLE = "Embedding Bag"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_embeddings, embedding_dim, max_norm, norm_type, scale_grad_by_freq, mode, sparse, _weight,
            include_last_offset, padding_idx, device=device, dtype=dtype,
        )  # fmt: skip
        self._take_qconfig(qconfig, device)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Reduce bags of rows of the rounded table."""
        return F.embedding_bag(
            input,
            self.weight_fake_quant(self.weight),
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )
