from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx

from qfx.errors import ConfigError, ObservationError
from qfx.observers import (
    AffineQuantizedObserverBase,
    MappingType,
    PerAxis,
    PerTensor,
    ZeroPointDomain,
    get_block_size,
)


class RowObserver(AffineQuantizedObserverBase):
    """Symmetric, from the last tensor alone."""

    largest: Tensor

    def forward(self, input: Tensor) -> Tensor:
        self.block_size = get_block_size(tuple(input.shape), self.granularity)
        self.original_dtype = input.dtype
        axes = [axis for axis, length in enumerate(self.block_size) if length > 1]
        self.largest = input.abs().amax(axes)
        return input

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        return self.largest / 7, torch.zeros_like(self.largest)


def test_a_subclass_chooses_a_scale_a_block() -> None:
    factory = RowObserver.with_args(
        mapping_type=MappingType.SYMMETRIC, target_dtype=torch.int8, granularity=PerAxis(0), unknown=1
    )
    observer = factory(quant_min=-8, quant_max=7)
    assert observer.block_size is None
    x = torch.tensor([[7.0, -14.0], [21.0, 0.0]])
    assert observer(x) is x
    assert observer.block_size == (1, 2)
    assert observer.original_dtype is torch.float32
    assert observer.calculate_qparams()[0].tolist() == [2.0, 3.0]
    assert (observer.quant_min, observer.quant_max) == (-8, 7)
    assert observer.zero_point_domain is ZeroPointDomain.INT
    assert observer.preserve_zero


def test_refused() -> None:
    with pytest.raises(ConfigError, match="RowObserver needs a granularity"):
        RowObserver(MappingType.SYMMETRIC, torch.int8, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        AffineQuantizedObserverBase(MappingType.SYMMETRIC, torch.int8, PerTensor())  # type: ignore[abstract]


def test_the_base_converts_nothing() -> None:
    gm = fx.symbolic_trace(torch.nn.ReLU())
    node = next(iter(gm.graph.nodes))
    with pytest.raises(ObservationError, match=r"override convert\(model, observer_node\)"):
        RowObserver(MappingType.SYMMETRIC, torch.int8, PerTensor()).convert(gm, node)
