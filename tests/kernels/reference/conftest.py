"""What the comparisons with torch's kernels share: how to make quantized tensors, and numbers that make ties."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from qfx.qparams import QParams

# Ratios of these are simple fractions, so sums and means often fall exactly between two codes: where roundings show.
TIED_SCALES = (0.1, 0.05, 0.2, 0.025, 0.3, 0.15, 0.7, 0.01, 0.03, 1 / 3, 0.6, 1.1, 0.07)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@pytest.fixture
def using() -> Callable[[str], object]:
    """``with using("onednn"):`` packs weights for that engine."""
    return _engine


@pytest.fixture
def wrap() -> Callable[[Tensor, QParams], Tensor]:
    """Codes and parameters to torch's quantized tensor."""

    def build(codes: Tensor, qparams: QParams) -> Tensor:
        if not qparams.is_per_channel:
            return torch._make_per_tensor_quantized_tensor(codes, *qparams.scalars())
        scale, zero_point = torch.as_tensor(qparams.scale).double(), torch.as_tensor(qparams.zero_point).long()
        return torch._make_per_channel_quantized_tensor(codes, scale, zero_point, qparams.axis)

    return build


@pytest.fixture(params=range(8))
def rng(request: pytest.FixtureRequest) -> random.Random:
    torch.manual_seed(request.param)
    return random.Random(request.param)


@pytest.fixture
def draw(rng: random.Random) -> Callable[[], QParams]:
    """Parameters of a quint8 tensor: a scale that makes ties, zero points at the ends as often as between."""
    return lambda: QParams(rng.choice(TIED_SCALES), rng.choice((0, 255, 128, rng.randrange(256))), dtype=torch.quint8)
