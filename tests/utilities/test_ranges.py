from __future__ import annotations

import pytest
import torch

import qfx
from qfx.errors import ConfigError, ObservationError
from qfx.utilities import private_names


def test_an_unset_range_warns() -> None:
    empty = torch.tensor([])
    inf = torch.tensor(float("inf"))
    for low, high in ((empty, empty), (inf, -inf)):
        with pytest.warns(UserWarning, match="has seen nothing yet"):
            assert not qfx.check_min_max_valid(low, high)
    assert qfx.check_min_max_valid(torch.tensor(-1.0), torch.tensor(2.0))
    assert qfx.check_min_max_valid(torch.tensor([-1.0, 2.0]), torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_range_upside_down(shape: tuple[int, ...]) -> None:
    with pytest.raises(ObservationError, match="should be less than max"):
        qfx.check_min_max_valid(torch.full(shape, 2.0), torch.full(shape, 1.0))


def test_codes() -> None:
    qfx.validate_qmin_qmax(-8, 7)
    with pytest.raises(ConfigError, match=r"must include 0\. The codes are 1\.\.7"):
        qfx.validate_qmin_qmax(1, 7)
    with pytest.raises(ConfigError, match="strictly less than qmax"):
        qfx.validate_qmin_qmax(0, 0)
    with pytest.raises(ConfigError, match="more than the 256 codes"):
        qfx.calculate_qmin_qmax(-256, 255, True, torch.qint8, False)
    assert qfx.calculate_qmin_qmax(-8, 7, True, torch.qint8, True) == (-4, 3)
    assert qfx.calculate_qmin_qmax(0, 0, False, torch.quint8, True) == (0, 127)
    assert qfx.calculate_qmin_qmax(0, 0, False, torch.float16, False) == (0, 15)


def test_parameters_of_a_range() -> None:
    scale, zero_point = qfx.determine_qparams(
        torch.tensor(-1.0), torch.tensor(1.55), 0, 255, torch.quint8, torch.tensor([1e-7]), False
    )
    assert scale.dtype is torch.float64
    assert scale.item() == pytest.approx(0.01)
    assert zero_point.tolist() == [100]
    with pytest.warns(UserWarning, match="has seen nothing yet"):
        found = qfx.determine_qparams(
            torch.tensor([]), torch.tensor([]), 0, 255, torch.quint8, torch.tensor([1e-7]), False
        )
    assert [each.tolist() for each in found] == [[1.0], [0]]


def test_underlying_dtypes() -> None:
    assert qfx.to_underlying_dtype(torch.quint4x2) is torch.uint8
    assert qfx.to_underlying_dtype(torch.qint32) is torch.int32
    assert qfx.to_underlying_dtype(torch.float8_e5m2) is torch.float8_e5m2
    with pytest.raises(ConfigError, match="does not stand for integer codes"):
        qfx.to_underlying_dtype(torch.float32)


def test_parameters_as_a_dictionary() -> None:
    observer = qfx.default_per_channel_weight_observer()
    observer(torch.tensor([[1.0, -1.27], [2.54, 0.0]]))
    found = qfx.get_qparam_dict(observer)
    assert found["qscheme"] is torch.per_channel_affine
    assert found["axis"] == 0
    assert found["dtype"] is torch.qint8
    assert (found["quant_min"], found["quant_max"]) == (-128, 127)
    assert torch.equal(found["scale"], observer.calculate_qparams()[0])
    assert "axis" not in qfx.get_qparam_dict(qfx.FixedQParamsObserver(0.5, 1))
    placeholder = qfx.PlaceholderObserver(dtype=torch.float16)
    assert qfx.get_qparam_dict(placeholder) == {"qscheme": None, "dtype": torch.float16}
    odd = qfx.FixedQParamsObserver(0.5, 1, qscheme="odd")
    with pytest.raises(ConfigError, match="FixedQParamsObserver has the scheme odd"):
        qfx.get_qparam_dict(odd)


def test_private_names_exist() -> None:
    assert all(hasattr(private_names, name) for name in private_names.__all__)
