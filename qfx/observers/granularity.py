"""How finely scales are spread over a tensor: one for all of it, one an axis, a row, a group, a block."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from qfx.errors import ConfigError


class MappingType(Enum):
    """How a range of real numbers becomes a range of codes.

    For the range -3.5..10.2 and the codes -8..7:
    """

    SYMMETRIC = auto()
    """Widened to -10.2..10.2, so that 0.0 lies in the middle: ``scale = 20.4 / 15``."""

    SYMMETRIC_NO_CLIPPING_ERR = auto()
    """The larger of the scales each side needs, ``max(3.5 / 8, 10.2 / 7)``: no value falls outside the codes."""

    ASYMMETRIC = auto()
    """Taken as it is: ``scale = 13.7 / 15``."""


class ZeroPointDomain(Enum):
    """What a zero point is: a code, a real number, or nothing."""

    INT = auto()
    """``code = round(value / scale) + zero_point``."""

    FLOAT = auto()
    """``code = round((value - (zero_point - scale * middle)) / scale)``, where middle is the middle code."""

    NONE = auto()
    """``code = round(value / scale)``."""


class TorchAODType(Enum):
    """Names of small signed integers, from before torch had ``torch.int1`` to ``torch.int7``."""

    INT1 = auto()
    INT2 = auto()
    INT3 = auto()
    INT4 = auto()
    INT5 = auto()
    INT6 = auto()
    INT7 = auto()


@dataclass(frozen=True)
class Granularity:
    """Base of the granularities; ``get_block_size`` says how many values share a scale."""


@dataclass(frozen=True)
class PerBlock(Granularity):
    """One scale for each block of this size, one number a dimension."""

    block_size: tuple[int, ...]


@dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale for the whole tensor."""


@dataclass(frozen=True)
class PerAxis(Granularity):
    """One scale for each index along ``axis``: 8 for a tensor (8, 16) and axis 0."""

    axis: int


@dataclass(frozen=True)
class PerGroup(Granularity):
    """One scale for each ``group_size`` neighbours in a row of a matrix: 32 for a tensor (8, 16) and groups of 4."""

    group_size: int


class PerRow(Granularity):
    """One scale for each row, that is, for each index of all dimensions but the last."""


class PerToken(Granularity):
    """One scale for each token, whose values are the last dimension: 6 for a tensor (2, 3, 4)."""


def get_block_size(input_shape: tuple[int, ...], granularity: Granularity) -> tuple[int, ...]:
    """Return how many values share a scale, one number a dimension.

    Args:
        input_shape: shape of the tensor.
        granularity: an instance, not a class.

    Raises:
        ConfigError: not an instance of a known granularity; groups of a tensor that is no matrix, or that do not
            divide its rows; a block with another number of dimensions; an axis the tensor does not have.

    Example:
        >>> get_block_size((8, 16), PerGroup(4)), get_block_size((8, 16), PerAxis(0))
        ((1, 4), (1, 16))
    """
    if not isinstance(granularity, Granularity):
        raise ConfigError(f"granularity is an instance such as PerTensor() or PerAxis(0), got {granularity!r}")
    shape = tuple(input_shape)
    if isinstance(granularity, PerTensor):
        return shape
    if isinstance(granularity, PerAxis):
        return _without_axis(shape, granularity.axis)
    if isinstance(granularity, PerRow | PerToken):
        return (*(1 for _ in shape[:-1]), *shape[-1:])
    if isinstance(granularity, PerGroup):
        return _group(shape, granularity.group_size)
    if isinstance(granularity, PerBlock):
        if len(granularity.block_size) != len(shape):
            raise ConfigError(f"a block of {granularity.block_size} does not have the dimensions of a tensor {shape}")
        return tuple(granularity.block_size)
    raise ConfigError(f"there is no block size for {granularity!r}; use PerTensor, PerAxis, PerGroup, PerRow ...")


def _without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    if not -len(shape) <= axis < len(shape):
        raise ConfigError(f"a tensor {shape} has no axis {axis}")
    axis %= len(shape)
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _group(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    if len(shape) != 2:
        raise ConfigError(f"PerGroup is for matrices, got a tensor of shape {shape}")
    if size < 1 or shape[1] % size:
        raise ConfigError(f"groups of {size} do not divide the rows of a tensor {shape}")
    return (1, size)
