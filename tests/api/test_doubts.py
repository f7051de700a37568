"""What conversion finds out about values, weights and layers, and how it says so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import DowngradeError

MAPPING = qfx.get_default_qconfig_mapping("x86")
TARGETS = ("native", "onednn", "reference")
X = torch.randn(4, 8)


# -- integers where floats were announced --------------------------------------------------------------------------
class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(x), counts * 3 + 1


@pytest.fixture
def saw_integers() -> qfx.ObservedGraphModule:
    prepared = qfx.prepare_fx(Arithmetic().eval(), MAPPING, (X, X))
    prepared(X, torch.arange(32).reshape(4, 8))
    return prepared


@pytest.mark.parametrize("target", TARGETS)
def test_integers_stay_integers(saw_integers: qfx.ObservedGraphModule, target: str) -> None:
    counts = torch.arange(32).reshape(4, 8) * 100
    with pytest.warns(
        UserWarning, match="3 values that were to be quantized are not: counts .*example_inputs"
    ) as caught:
        gm = qfx.convert_fx(saw_integers, target=target)
    assert len(caught) == 1
    layer, computed = gm(X, counts)
    assert torch.equal(computed, counts * 3 + 1)
    assert computed.dtype is torch.int64
    torch.testing.assert_close(layer, saw_integers(X, counts)[0], rtol=0, atol=0.05)  # which is quantized all the same
    for name in ("mul", "add"):
        assert qfx.explain(gm)[name].reasons[0].startswith("calibration gave it integers")
    if target != "reference":
        assert gm.plan["unlowered"] == {}
        assert len(gm.plan["kernels"]) == 1
    with pytest.raises(DowngradeError, match=r"calibration gave it integers.*give prepare_fx one in its place"):
        qfx.convert_fx(saw_integers, target=target, strict=True)


def test_integers_that_were_announced_are_no_downgrade() -> None:
    counts = torch.arange(32).reshape(4, 8)
    prepared = qfx.prepare_fx(Arithmetic().eval(), MAPPING, (X, counts), strict=True)
    prepared(X, counts)
    gm = qfx.convert_fx(prepared, strict=True)
    assert torch.equal(gm(X, counts)[1], counts * 3 + 1)


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_an_op_of_an_integer_and_a_float_is_listed(target: str) -> None:
    class Mixed(Arithmetic):
        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> Any:
            return self.layer(x) + counts

    prepared = qfx.prepare_fx(Mixed().eval(), MAPPING, (X, X))
    counts = torch.arange(32).reshape(4, 8)
    prepared(X, counts)
    with pytest.warns(UserWarning, match="1 values that were to be quantized are not: counts"):
        gm = qfx.convert_fx(prepared, target=target)
    assert "add" in gm.plan["unlowered"]
    torch.testing.assert_close(gm(X, counts), prepared(X, counts), rtol=0, atol=0.3)


# -- weights that are not finite -----------------------------------------------------------------------------------
class Layer(nn.Module):
    def __init__(self, spelling: str, bad: float) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        if spelling == "fused":
            self.layer = nn.Sequential(self.layer, nn.ReLU())
        self.spelling = spelling
        with torch.no_grad():
            next(self.parameters())[0, 0] = bad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.spelling == "function":
            return F.linear(x, self.layer.weight, self.layer.bias)
        return self.layer(x) + self.layer(x) if self.spelling == "twice" else self.layer(x)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("bad", "word"), [(float("-inf"), "infinity"), (float("nan"), "NaN")])
@pytest.mark.parametrize("spelling", ["module", "fused", "function", "twice"])
def test_a_weight_that_is_not_finite(spelling: str, bad: float, word: str, target: str) -> None:
    prepared = qfx.prepare_fx(Layer(spelling, bad).eval(), MAPPING, (X,))
    prepared(torch.zeros(0, 8))  # nothing of the activations is known, so nothing else is wrong with them
    name = "layer.0.weight" if spelling == "fused" else "layer.weight"
    said = rf"constants of {2 if spelling == 'twice' else 1} operators are doubtful: \w+: saw {word} in {name}"
    with pytest.warns(UserWarning, match=said) as caught:
        gm = qfx.convert_fx(prepared, target=target)
    assert len(caught) == 1
    computing = [e for e in qfx.explain(gm) if e.status in ("integer", "float") and "linear" in e.op.lower()]
    assert len(computing) == (2 if spelling == "twice" else 1)
    assert all(f"saw {word} in {name}" in entry.notes[0] for entry in computing)
    with pytest.raises(DowngradeError, match=f"saw {word} in {name}.*Correct these constants of the model"):
        qfx.convert_fx(prepared, target=target, strict=True)


def test_an_average_that_became_nan_in_training() -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.sqrt(), x])

    prepared = qfx.prepare_qat_fx(Root().train(), qfx.get_default_qat_qconfig_mapping("x86"), (X,))
    prepared(-X.abs())
    with pytest.warns(UserWarning, match="sqrt: saw NaN"):
        gm = qfx.convert_fx(prepared)
    assert all(bool(value.isfinite().all()) for value in gm.buffers())
    with pytest.raises(DowngradeError, match="saw NaN"):
        qfx.convert_fx(prepared, strict=True)


# -- layers without features ---------------------------------------------------------------------------------------
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
    EMPTY = {
        "no inputs": (nn.Linear(0, 4), torch.randn(3, 0)),
        "no outputs": (nn.Linear(4, 0), torch.randn(3, 4)),
        "no channels": (nn.Conv2d(0, 4, 1), torch.randn(2, 0, 3, 3)),
    }


class Called(nn.Module):
    def __init__(self, layer: nn.Module, spelling: str) -> None:
        super().__init__()
        self.layer, self.spelling = layer, spelling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.spelling == "module":
            return self.layer(x)
        function = F.linear if isinstance(self.layer, nn.Linear) else F.conv2d
        return function(x, self.layer.weight, self.layer.bias)  # type: ignore[operator]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("spelling", ["module", "function"])
@pytest.mark.parametrize("name", EMPTY)
def test_a_layer_without_features_stays_float(name: str, spelling: str, target: str) -> None:
    layer, x = EMPTY[name]
    model = Called(layer, spelling).eval()
    prepared = qfx.prepare_fx(model, MAPPING, (x,))
    prepared(x)
    gm = qfx.convert_fx(prepared, target=target)
    assert torch.equal(gm(x), model(x))
    assert qfx.summary(gm).reasons == {"its weight has no elements, so there is nothing to quantize": 1}
    with pytest.raises(DowngradeError, match="its weight has no elements"):
        qfx.prepare_fx(model, MAPPING, (x,), strict=True)


# -- scales along another axis -------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("spelling", ["module", "function"])
def test_scales_along_inputs_are_left_to_float(spelling: str, target: str) -> None:
    """Kernels would read them as scales of outputs: the layer is square, so nothing else would tell."""
    weight = qfx.PerChannelMinMaxObserver.with_args(ch_axis=1, dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    mapping = qfx.QConfigMapping().set_global(qfx.QConfig(qfx.MinMaxObserver, weight))
    model = Called(nn.Linear(8, 8), spelling).eval()
    model.layer.weight.data *= torch.logspace(-2, 1, 8)
    prepared = qfx.prepare_fx(model, mapping, (X,))
    prepared(X)
    gm = qfx.convert_fx(prepared, target=target)
    torch.testing.assert_close(gm(X), qfx.convert_to_reference_fx(prepared)(X), rtol=0, atol=1e-5)
    (reasons,) = gm.plan["unlowered"].values()
    assert "the scales of its weight lie along axis 1, its output channels along axis 0" in reasons[0]


# -- what no kernel takes ------------------------------------------------------------------------------------------
class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.layer(x).chunk(2, 1))  # all parts at once: no kernel splits so


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_an_op_whose_result_nobody_rounds_is_listed(target: str) -> None:
    prepared = qfx.prepare_fx(Split().eval(), MAPPING, (X,), strict=True)
    prepared(X)
    gm = qfx.convert_fx(prepared, target=target)
    assert gm.plan["unlowered"] == {"chunk": ["the target has no integer kernel for chunk"]}
    assert qfx.explain(gm)["chunk"].reasons == ("the target has no integer kernel for chunk",)
    with pytest.raises(
        DowngradeError, match=r"no integer kernel took 1 places: chunk \(.*test_doubts.py:\d+\): the tar"
    ):
        qfx.convert_fx(prepared, target=target, strict=True)
