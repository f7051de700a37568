from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qfx.errors import ConfigError, ObservationError
from qfx.qparams import QParams, choose_qparams, dequantize, product_scale, quantize, with_codes

CPU_MULTIPLIES_AND_ADDS_AT_ONCE = "AVX" in torch.backends.cpu.get_cpu_capability()


def t(*values: float) -> Tensor:
    return torch.tensor(values)


def test_affine_widens_the_range_to_zero() -> None:
    scale, zero_point = choose_qparams(torch.tensor(1.0), torch.tensor(25.5))
    torch.testing.assert_close(scale, t(0.1))
    assert zero_point.tolist() == [0]
    assert (scale.shape, zero_point.shape, zero_point.dtype) == ((1,), (1,), torch.int32)


def test_affine_per_channel() -> None:
    scale, zero_point = choose_qparams(t(-1.0, 0.0), t(1.55, 2.55), qscheme=torch.per_channel_affine)
    torch.testing.assert_close(scale, t(0.01, 0.01))
    assert zero_point.tolist() == [100, 0]


@pytest.mark.parametrize(
    ("dtype", "codes", "middle"),
    [
        (torch.qint8, {}, 0),
        (torch.quint8, {}, 128),
        (torch.quint8, {"quant_min": 0, "quant_max": 255}, 127),
        (torch.uint16, {}, 2**15),
    ],
)
def test_symmetric_puts_zero_in_the_middle(dtype: torch.dtype, codes: dict[str, int], middle: int) -> None:
    _, zero_point = choose_qparams(
        torch.tensor(-3.0), torch.tensor(1.0), qscheme=torch.per_tensor_symmetric, dtype=dtype, **codes
    )
    assert zero_point.tolist() == [middle]


def test_float_qparams_keep_the_range_as_it_is() -> None:
    scheme = torch.per_channel_affine_float_qparams
    scale, zero_point = choose_qparams(t(2.0, 5.0), t(17.0, 5.0), qscheme=scheme, dtype=torch.quint4x2)
    torch.testing.assert_close(scale, t(1.0, 1.0))
    torch.testing.assert_close(zero_point, t(-2.0, -5.0))


def test_the_scale_has_a_floor() -> None:
    scale, _ = choose_qparams(torch.tensor(0.0), torch.tensor(0.0), eps=2**-12)
    assert scale.item() == 2**-12


def test_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(ObservationError, match="minimum is above the maximum"):
        choose_qparams(t(0.0, 2.0), t(1.0, 1.0), qscheme=torch.per_channel_affine)


@st.composite
def scaled_values(draw: st.DrawFn) -> tuple[Tensor, float, int]:
    scale = draw(st.floats(1e-4, 10.0))
    zero_point = draw(st.integers(0, 255))
    halves = draw(st.lists(st.integers(-700, 700), min_size=1, max_size=60))
    return torch.tensor(halves, dtype=torch.float64).mul(scale / 2).float(), scale, zero_point


@pytest.mark.skipif(not CPU_MULTIPLIES_AND_ADDS_AT_ONCE, reason="torch rounds twice on CPUs without fused multiply-add")
@settings(deadline=None, max_examples=60)
@given(scaled_values())
def test_quantize_and_dequantize_are_torchs_bit_for_bit_per_tensor(case: tuple[Tensor, float, int]) -> None:
    x, scale, zero_point = case
    theirs = torch.quantize_per_tensor(x, scale, zero_point, torch.quint8)
    mine = QParams(scale, zero_point, dtype=torch.quint8)
    codes = quantize(x, mine)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes, theirs.int_repr())
    assert torch.equal(dequantize(codes, mine), theirs.dequantize())


@settings(deadline=None, max_examples=60)
@given(scaled_values(), st.integers(0, 1))
def test_quantize_and_dequantize_are_torchs_bit_for_bit_per_channel(case: tuple[Tensor, float, int], axis: int) -> None:
    x, scale, zero_point = case
    scales, zero_points = t(scale, scale * 0.7, scale * 1.3), torch.tensor([zero_point - 128, 0, 3])
    x = torch.stack([x, -x, x * 1.3], axis)
    theirs = torch.quantize_per_channel(x, scales, zero_points, axis, torch.qint8)
    mine = QParams(scales, zero_points, axis, torch.qint8)
    codes = quantize(x, mine)
    assert torch.equal(codes, theirs.int_repr())
    assert torch.equal(dequantize(codes, mine), theirs.dequantize())


def test_quantize_is_torchs_for_biases() -> None:
    x = torch.linspace(-1e6, 1e6, 1001)
    theirs = torch.quantize_per_tensor(x, 0.0317, 0, torch.qint32)
    mine = QParams(0.0317, 0, dtype=torch.qint32)
    assert torch.equal(quantize(x, mine), theirs.int_repr())
    assert torch.equal(dequantize(quantize(x, mine), mine), theirs.dequantize())


def test_quantize_saturates_at_the_codes_in_use_or_at_the_stored_type() -> None:
    q = QParams(1.0, 0, dtype=torch.quint8, quant_min=0, quant_max=127)
    x = t(-5.0, 126.0, 200.0, 300.0, float("inf"), float("nan"))
    assert quantize(x, q).tolist() == [0, 126, 127, 127, 127, 0]
    assert quantize(x, q, saturate_storage=True).tolist() == [0, 126, 200, 255, 255, 0]


def test_the_ends_of_int32_survive() -> None:
    q = QParams(1.0, 0, dtype=torch.int32)
    assert quantize(t(3e9, -3e9), q).tolist() == [2**31 - 1, -(2**31)]


def test_product_scale() -> None:
    activation, weight = QParams(0.5, 3, dtype=torch.quint8), QParams(t(0.25, 0.5), torch.zeros(2), 0, torch.qint8)
    per_tensor = product_scale(activation, QParams(0.25, dtype=torch.qint8))
    assert (per_tensor.scale, per_tensor.zero_point, per_tensor.axis, per_tensor.dtype) == (0.125, 0, None, torch.int32)
    per_channel = product_scale(activation, weight)
    assert per_channel.axis == 0
    torch.testing.assert_close(per_channel.scale, torch.tensor([0.125, 0.25], dtype=torch.float64))
    with pytest.raises(ConfigError, match="per-tensor activation"):
        product_scale(weight, weight)


def test_qparams_know_their_codes() -> None:
    assert QParams(1.0, dtype=torch.quint8).codes == (0, 255)
    assert QParams(1.0, dtype=torch.quint8, quant_min=0, quant_max=127).codes == (0, 127)
    assert QParams(1.0, dtype=torch.quint8).storage == torch.uint8
    assert with_codes(QParams(1.0, dtype=torch.quint8), torch.int8).codes == (-128, 127)
    assert QParams(t(0.5), t(3)).scalars() == (0.5, 3)
    with pytest.raises(ConfigError, match="have no dtype"):
        _ = QParams(1.0).codes
    with pytest.raises(ConfigError, match="per channel"):
        QParams(t(1.0, 2.0), t(0, 0), 0).scalars()


def test_qparams_compare_and_survive_copies() -> None:
    a = QParams(t(0.5, 1.0), torch.tensor([0, 1]), 0, torch.qint8, qscheme=torch.per_channel_affine)
    for b in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert a == b
        assert hash(a) == hash(b)
    assert a != QParams(t(0.5, 2.0), torch.tensor([0, 1]), 0, torch.qint8, qscheme=torch.per_channel_affine)
    assert QParams(0.5, 1) == QParams(t(0.5), torch.tensor([1]))
    assert QParams(0.5) != 0.5


def test_a_number_stays_without_dimensions() -> None:
    q = QParams(0.5, 10, dtype=torch.quint8)
    codes = quantize(torch.tensor(1.0), q)
    assert (codes.shape, int(codes)) == ((), 12)
    assert dequantize(codes, q).shape == ()
