"""Sums, products, tables and concatenation of codes: exact."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from qfx.kernels import onednn
from qfx.kernels.onednn.elementwise import add_factors

SCALES = st.floats(1e-3, 10.0).map(lambda s: float(torch.tensor(s)))
ZEROS = st.integers(0, 255)
CODES = st.integers(0, 255)
EVERY = torch.arange(256, dtype=torch.uint8)


def clamped(code: int) -> int:
    return max(0, min(255, code))


@given(CODES, CODES, SCALES, SCALES, SCALES, ZEROS, ZEROS, ZEROS)
def test_a_sum_is_the_fixed_point_sum(a: int, b: int, xs: float, ys: float, s: float, xz: int, yz: int, z: int) -> None:
    x, y = torch.tensor([a], dtype=torch.uint8), torch.tensor([b], dtype=torch.uint8)
    found = int(onednn.add(x, xs, xz, y, ys, yz, s, z))
    fa, fb, shift = add_factors(xs, ys, s)
    fixed = ((a - xz) * fa + (b - yz) * fb + (z << shift) + ((1 << shift) >> 1)) >> shift
    assert found == clamped(fixed)
    # and the fixed-point sum is the rounded real one, but for values next to a tie
    real = (Fraction(a - xz) * Fraction(xs) + Fraction(b - yz) * Fraction(ys)) / Fraction(s) + z
    off = abs(real - (real.__floor__() + Fraction(1, 2)))
    if off > Fraction(max(xs, ys, s) / s) / 2**10:
        assert found == clamped((real + Fraction(1, 2)).__floor__())


@given(CODES, CODES, SCALES, SCALES, SCALES, ZEROS, ZEROS, ZEROS)
def test_a_product_is_rounded_once(a: int, b: int, xs: float, ys: float, s: float, xz: int, yz: int, z: int) -> None:
    x, y = torch.tensor([a], dtype=torch.uint8), torch.tensor([b], dtype=torch.uint8)
    factor = torch.tensor(xs * ys / s, dtype=torch.float32)
    product = float(torch.tensor(float((a - xz) * (b - yz))) * factor + z)
    assert int(onednn.mul(x, xs, xz, y, ys, yz, s, z)) == clamped(round(min(max(product, -1e6), 1e6)))


def test_ties_of_products_go_to_the_even_code() -> None:
    x, one = torch.tensor([101, 103, 99], dtype=torch.uint8), torch.tensor([1], dtype=torch.uint8)
    # 0.5, 1.5 and -0.5 above an odd zero point
    assert onednn.mul(x, 1.0, 100, one, 0.5, 0, 1.0, 7).tolist() == [8, 8, 6]


def test_bounds_are_codes_of_the_result() -> None:
    x = EVERY
    found = onednn.add(x, 0.1, 100, x, 0.1, 100, 0.1, 100, low=-1.0, high=2.0)
    assert (int(found.min()), int(found.max())) == (90, 120)
    found = onednn.mul(x, 0.1, 100, x, 0.1, 100, 0.1, 100, low=0.0, high=1.0)
    assert (int(found.min()), int(found.max())) == (100, 110)
    assert onednn.clamp(x, 0.1, 100, low=0.0).min() == 100
    assert onednn.clamp(x, 0.1, 100, high=0.5).max() == 105


def test_the_largest_code_of_a_result() -> None:
    x, y = (torch.arange(256, dtype=torch.uint8).reshape(shape) for shape in ((-1, 1), (1, -1)))
    for op in (onednn.add, onednn.mul):
        arguments = (x, 0.1, 60, y, 0.2, 50, 0.3, 40)
        assert torch.equal(op(*arguments, most=127), op(*arguments).clamp(max=127))
        assert torch.equal(op(*arguments, high=9.0, most=127), op(*arguments, high=9.0))
        assert torch.equal(op(*arguments, high=90.0, most=127), op(*arguments, most=127))


def test_operands_broadcast_and_are_not_written_to() -> None:
    x, y = (
        torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8),
        torch.randint(0, 256, (2, 3, 1, 1), dtype=torch.uint8),
    )
    before = x.clone(), y.clone()
    for function in (onednn.add, onednn.mul):
        found = function(x, 0.1, 3, y, 0.2, 5, 0.3, 7)
        assert torch.equal(found, function(x, 0.1, 3, y.expand_as(x), 0.2, 5, 0.3, 7))
        assert torch.equal(function(y, 0.2, 5, x, 0.1, 3, 0.3, 7), found)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@given(SCALES, ZEROS, SCALES, ZEROS)
def test_a_table_is_the_reference_graph(xs: float, xz: int, s: float, z: int) -> None:
    table = onednn.table_of(F.gelu, xs, xz, s, z)
    assert torch.equal(onednn.lookup(EVERY, table), onednn.quantize(F.gelu(onednn.dequantize(EVERY, xs, xz)), s, z))


def test_a_lookup_keeps_shape_and_layout() -> None:
    table = torch.randperm(256).to(torch.uint8)
    x = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    for each in (x, x.contiguous(memory_format=torch.channels_last), x[:, ::2, 1:], x.permute(3, 1, 0, 2), x[:0]):
        found = onednn.lookup(each, table)
        assert torch.equal(found, table[each.long()])
    last = x.contiguous(memory_format=torch.channels_last)
    assert onednn.lookup(last, table).is_contiguous(memory_format=torch.channels_last)


def test_joined_codes_are_requantized_where_they_must() -> None:
    x, y = torch.randint(0, 256, (2, 3, 4), dtype=torch.uint8), torch.randint(0, 256, (2, 5, 4), dtype=torch.uint8)
    found = onednn.cat([x, y], [0.1, 0.2], [3, 9], 0.1, 3, dim=1)
    assert torch.equal(found[:, :3], x)
    assert torch.equal(found[:, 3:], onednn.requantize(y, 0.2, 9, 0.1, 3))
