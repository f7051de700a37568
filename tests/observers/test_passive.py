from __future__ import annotations

import pytest
import torch

from qfx.errors import ConfigError, ObservationError
from qfx.observers import (
    FixedQParamsObserver,
    NoopObserver,
    ObserverBase,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
)


def test_fixed_parameters_are_what_was_given() -> None:
    observer = FixedQParamsObserver(0.5, 3, dtype=torch.qint8, quant_min=-128, quant_max=127)
    assert observer(torch.full((2, 3), 99.0)).shape == (2, 3)
    scale, zero_point = observer.calculate_qparams()
    assert (scale.tolist(), zero_point.tolist()) == ([0.5], [3])
    assert list(observer.state_dict()) == ["scale", "zero_point"]
    assert (observer.qparams().codes, observer.seen_shape, observer.problems()) == ((-128, 127), [2, 3], [])
    with pytest.raises(ConfigError, match="cannot be dynamic"):
        FixedQParamsObserver(0.5, 3, is_dynamic=True)


@pytest.mark.parametrize("cls", [PlaceholderObserver, NoopObserver, ReuseInputObserver, RecordingObserver])
def test_placeholders_pass_values_and_have_no_scale(cls: type[ObserverBase]) -> None:
    observer = cls()
    x = torch.randn(2)
    assert observer(x) is x
    assert (observer.seen_shape, observer.batches) == ([2], 1)
    assert dict(observer.state_dict()) == {}
    with pytest.raises(ObservationError, match="gathers no range"):
        observer.calculate_qparams()


def test_a_placeholder_carries_its_configuration() -> None:
    observer = PlaceholderObserver(torch.quint8, "op", quant_min=0, quant_max=127, is_dynamic=True)
    facts = (observer.dtype, observer.custom_op, observer.quant_min, observer.quant_max, observer.is_dynamic)
    assert facts == (torch.quint8, "op", 0, 127, True)
    assert (observer.qscheme, observer.eps) == (torch.per_tensor_affine, 2**-23)
    assert repr(observer) == "PlaceholderObserver(dtype=torch.quint8, is_dynamic=True)"


def test_compute_dtype_still_means_dynamic() -> None:
    with pytest.warns(DeprecationWarning, match="is_dynamic=True"):
        assert PlaceholderObserver(compute_dtype=torch.quint8).is_dynamic


def test_a_recording_keeps_copies() -> None:
    observer = RecordingObserver()
    x = torch.ones(2)
    observer(x)
    x.zero_()
    assert [value.tolist() for value in observer.get_tensor_value()] == [[1.0, 1.0]]


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError):
        ObserverBase(torch.quint8)
