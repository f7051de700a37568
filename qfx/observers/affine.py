"""The base of observers that choose a scale for each block of a tensor.

Compiled by TorchScript: no ``from __future__ import annotations`` here.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import ConfigError, ObservationError
from qfx.observers.factory import with_args
from qfx.observers.granularity import Granularity, MappingType, ZeroPointDomain


class AffineQuantizedObserverBase(ABC, nn.Module):
    """Base of observers that choose a scale for each block of a tensor. Subclasses give ``forward`` and
    ``calculate_qparams``; ``forward`` sets ``block_size`` and ``original_dtype``.

    Args:
        mapping_type: how a range becomes codes.
        target_dtype: dtype of the codes.
        granularity: which values share a scale.
        quant_min, quant_max: the codes; ``None`` for all of the dtype's.
        eps: smallest scale; ``None`` leaves it to the subclass.
        scale_dtype, zero_point_dtype: dtypes of the parameters; ``None`` for those of what is observed.
        preserve_zero: whether 0.0 must be one of the values codes stand for.
        zero_point_domain: what a zero point is.
        kwargs: ignored, so that one factory serves several observers.

    Attributes:
        block_size: how many values share a scale, one number a dimension; ``None`` before something was observed.
        original_dtype: dtype of what was observed; ``None`` before.

    Raises:
        ConfigError: no granularity.
    """

    with_args = classmethod(with_args)

    def __init__(
        self,
        mapping_type: MappingType,
        target_dtype: torch.dtype,
        granularity: Granularity,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float | None = None,
        scale_dtype: torch.dtype | None = None,
        zero_point_dtype: torch.dtype | None = None,
        preserve_zero: bool = True,
        zero_point_domain: ZeroPointDomain | None = ZeroPointDomain.INT,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if granularity is None:
            raise ConfigError(f"{type(self).__name__} needs a granularity, e.g. PerTensor() or PerAxis(0)")
        self.mapping_type = mapping_type
        self.target_dtype = target_dtype
        self.granularity = granularity
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.eps = eps
        self.scale_dtype = scale_dtype
        self.zero_point_dtype = zero_point_dtype
        self.preserve_zero = preserve_zero
        self.zero_point_domain = zero_point_domain
        self.block_size: tuple[int, ...] | None = None
        self.original_dtype: torch.dtype | None = None

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """Observe ``input`` and return it."""

    @abstractmethod
    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return ``(scale, zero_point)``, one element a block."""

    def convert(self, model: torch.fx.GraphModule, observer_node: torch.fx.Node) -> None:
        """Put quantize and dequantize in the place of this observer's node.

        The base class cannot: no operator of torch quantizes by blocks (the ones the original calls,
        ``torch.ops.pt2e_quant.quantize_affine`` and its like, are gone). A subclass that has such functions overrides
        this.

        Raises:
            ObservationError: always.
        """
        raise ObservationError(
            f"{type(self).__name__} at {observer_node} has no quantized form: torch has no operator that quantizes by "
            "blocks; override convert(model, observer_node) with your own"
        )
