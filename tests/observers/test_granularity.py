from __future__ import annotations

import pytest

from qfx.errors import ConfigError
from qfx.observers import (
    Granularity,
    MappingType,
    PerAxis,
    PerBlock,
    PerGroup,
    PerRow,
    PerTensor,
    PerToken,
    TorchAODType,
    ZeroPointDomain,
    get_block_size,
)


@pytest.mark.parametrize(
    ("granularity", "block"),
    [
        (PerTensor(), (2, 3, 4)),
        (PerAxis(0), (1, 3, 4)),
        (PerAxis(-1), (2, 3, 1)),
        (PerRow(), (1, 1, 4)),
        (PerToken(), (1, 1, 4)),
        (PerBlock((2, 1, 2)), (2, 1, 2)),
    ],
)
def test_block_size(granularity: Granularity, block: tuple[int, ...]) -> None:
    assert get_block_size((2, 3, 4), granularity) == block


def test_groups_of_a_row() -> None:
    assert get_block_size((8, 16), PerGroup(4)) == (1, 4)


@pytest.mark.parametrize(
    ("shape", "granularity", "reason"),
    [
        ((2, 3, 4), PerGroup(2), "PerGroup is for matrices"),
        ((2, 6), PerGroup(4), "groups of 4 do not divide"),
        ((2, 6), PerGroup(0), "groups of 0 do not divide"),
        ((2, 6), PerAxis(2), "has no axis 2"),
        ((2, 6), PerBlock((1, 2, 3)), "does not have the dimensions"),
        ((2, 6), PerTensor, "an instance such as PerTensor"),
        ((2, 6), Granularity(), "there is no block size for Granularity"),
    ],
)
def test_refused(shape: tuple[int, ...], granularity: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        get_block_size(shape, granularity)  # type: ignore[arg-type]


def test_granularities_are_values() -> None:
    assert PerAxis(1) == PerAxis(1)
    assert PerAxis(1) != PerAxis(0)
    assert PerRow() != PerToken()
    assert len({PerGroup(4), PerGroup(4), PerGroup(8)}) == 2


def test_enumerations() -> None:
    assert [kind.name for kind in MappingType] == ["SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR", "ASYMMETRIC"]
    assert [kind.name for kind in ZeroPointDomain] == ["INT", "FLOAT", "NONE"]
    assert [kind.name for kind in TorchAODType] == [f"INT{n}" for n in range(1, 8)]
