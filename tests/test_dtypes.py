from __future__ import annotations

import pytest
import torch

from qfx import dtypes
from qfx.errors import ConfigError


@pytest.mark.parametrize(
    ("dtype", "storage", "bits", "codes", "reduced"),
    [
        (torch.quint8, torch.uint8, 8, (0, 255), (0, 127)),
        (torch.uint8, torch.uint8, 8, (0, 255), (0, 127)),
        (torch.qint8, torch.int8, 8, (-128, 127), (-64, 63)),
        (torch.int8, torch.int8, 8, (-128, 127), (-64, 63)),
        (torch.qint32, torch.int32, 32, (-(2**31), 2**31 - 1), (-(2**31), 2**31 - 1)),
        (torch.int32, torch.int32, 32, (-(2**31), 2**31 - 1), (-(2**31), 2**31 - 1)),
        (torch.int16, torch.int16, 16, (-(2**15), 2**15 - 1), (-(2**15), 2**15 - 1)),
        (torch.uint16, torch.uint16, 16, (0, 2**16 - 1), (0, 2**16 - 1)),
        (torch.quint4x2, torch.uint8, 4, (0, 15), (0, 15)),
        (torch.quint2x4, torch.uint8, 2, (0, 3), (0, 3)),
    ],
)
def test_facts(
    dtype: torch.dtype, storage: torch.dtype, bits: int, codes: tuple[int, int], reduced: tuple[int, int]
) -> None:
    assert dtypes.storage_dtype(dtype) == storage
    assert dtypes.bits(dtype) == bits
    assert dtypes.code_range(dtype) == codes
    assert dtypes.code_range(dtype, reduce_range=True) == reduced
    assert dtypes.is_signed(dtype) == (codes[0] < 0)
    assert dtypes.is_integer(dtype)


def test_quantized_dtypes_are_told_from_plain_ones() -> None:
    assert dtypes.is_quantized(torch.quint8)
    assert not dtypes.is_quantized(torch.uint8)
    assert not dtypes.is_quantized(torch.float32)
    assert not dtypes.is_integer(torch.float16)


def test_a_float_dtype_has_no_codes() -> None:
    with pytest.raises(ConfigError, match=r"torch\.float32 does not stand for integer codes; use one of"):
        dtypes.code_range(torch.float32)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (1, 10, "must include 0"),
        (-10, -1, "must include 0"),
        (0, 0, "strictly less than qmax"),
        (-128, 128, "more than the 256"),
    ],
)
def test_a_code_range_must_fit(low: int, high: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        dtypes.check_code_range(torch.qint8, low, high)


def test_a_range_asked_for_is_halved_and_half_a_range_is_none() -> None:
    assert dtypes.resolve_code_range(torch.qint8, -127, 127) == (-127, 127)
    assert dtypes.resolve_code_range(torch.qint8, -127, 127, reduce_range=True) == (-64, 63)
    assert dtypes.resolve_code_range(torch.qint8, None, 127) == (-128, 127)
    assert dtypes.resolve_code_range(torch.float8_e4m3fn, None, None) == (0, 15)


def test_schemes() -> None:
    assert dtypes.is_per_tensor(torch.per_tensor_symmetric)
    assert dtypes.is_per_channel(torch.per_channel_affine_float_qparams)
    assert dtypes.is_symmetric(torch.per_channel_symmetric)
    assert not dtypes.is_symmetric(torch.per_tensor_affine)
    assert dtypes.has_float_zero_point(torch.per_channel_affine_float_qparams)
    assert not dtypes.is_per_tensor(None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.quint8, torch.uint8, True),
        (torch.qint8, torch.int8, True),
        (torch.qint32, torch.int32, True),
        (torch.float32, torch.float32, True),
        (torch.quint8, torch.int8, False),
        (torch.quint4x2, torch.uint8, False),  # as wide in memory, but of 16 codes
        (torch.float16, torch.int16, False),
    ],
)
def test_dtypes_of_the_same_codes(one: torch.dtype, other: torch.dtype, same: bool) -> None:
    assert dtypes.same_codes(one, other) is dtypes.same_codes(other, one) is same


def test_the_quantized_dtype_of_the_same_codes() -> None:
    found = {dtype: dtypes.quantized_dtype(dtype) for dtype in dtypes.FACTS}
    assert all(found[dtype] is dtype for dtype in dtypes.QUANTIZED_DTYPES)
    plain = {dtype: kind for dtype, kind in found.items() if dtype not in dtypes.QUANTIZED_DTYPES}
    assert plain == {
        torch.uint8: torch.quint8,
        torch.int8: torch.qint8,
        torch.int32: torch.qint32,
        torch.int16: None,
        torch.uint16: None,
    }
    assert dtypes.quantized_dtype(torch.float16) is None
