from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import ConfigError, DowngradeError
from qfx.nn import intrinsic
from qfx.nn.quantized import reference

MAPPING = qfx.get_default_qconfig_mapping("x86")
X = torch.rand(4, 4, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 5)
        self.w = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = F.relu6(self.point(x)) + x
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.linear(self.fc(x), self.w)


def converted(model: nn.Module, *example: torch.Tensor, **how: Any) -> qfx.QuantizedGraphModule:
    prepared = qfx.prepare_fx(model.eval(), MAPPING, example)
    prepared(*example)
    return qfx.convert_to_reference_fx(prepared, **how)


def test_the_reference_graph_has_the_known_form() -> None:
    gm = converted(Net(), X)
    code = gm.code
    assert "torch.quantize_per_tensor(x, conv_input_scale_0, conv_input_zero_point_0, torch.quint8)" in code
    assert "torch.quantize_per_channel(w, " in code
    assert code.count(".dequantize()") == code.count("torch.quantize_per_")
    assert isinstance(gm.conv, intrinsic.ConvReLU2d)
    assert isinstance(gm.conv[0], reference.Conv2d)
    assert isinstance(gm.point, reference.Conv2d)
    assert isinstance(gm.fc, reference.Linear)
    assert not any("activation_post_process" in name for name, _ in gm.named_modules())


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Functions(), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(x) + torch.hardshrink(self.b(y))


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (
            qfx.get_default_qconfig_mapping("x86"),
            ["a_input", "b_input", "a", "a", "b", "", ""],  # the inputs in their order; a's weight, then its result
        ),
        (qfx.QConfigMapping().set_object_type(F.linear, MAPPING.global_qconfig), ["a_input", "a_input", "a"]),
    ],
)
def test_parameters_are_called_after_what_is_quantized(mapping: qfx.QConfigMapping, expected: list[str]) -> None:
    x = (torch.randn(4, 5), torch.randn(4, 5))
    prepared = qfx.prepare_fx(TwoInputs().eval(), mapping, x)
    prepared(*x)
    buffers = [name for name, _ in qfx.convert_to_reference_fx(prepared).named_buffers(recurse=False)]
    assert [name.rpartition("_scale_")[0] for name in buffers if "_scale_" in name] == expected


def test_it_is_close_to_float() -> None:
    model = Net().eval()
    out, expected = converted(model, X)(X), model(X)
    noise = (out - expected).detach().pow(2).sum() / expected.detach().pow(2).sum()
    assert float(noise) < 1e-3  # 30 dB: 7-bit activations and 8-bit weights through five layers


def simulated(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


def test_it_computes_exactly_what_its_parameters_say() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1)).eval()
    gm = converted(model, X)
    codes, scales = gm.get_submodule("0").get_quantized_weight(), dict(gm.named_buffers())
    x = simulated(X, float(scales["0_input_scale_0"]), int(scales["0_input_zero_point_0"]))
    y = F.conv2d(x, codes.dequantize(), model[0].bias)
    expected = simulated(y, float(scales["0_scale_0"]), int(scales["0_zero_point_0"]))
    torch.testing.assert_close(gm(X), expected, rtol=0, atol=0)


def test_a_module_called_twice_keeps_one_reference() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.fc(x) + 1)

    x = torch.randn(3, 4)
    gm = converted(Twice(), x)
    assert sum(n.target == "fc" for n in gm.graph.nodes) == 2
    assert isinstance(gm.fc, reference.Linear)
    gm(x)


def test_shared_observers_give_one_scale() -> None:
    gm = converted(nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.Flatten()), X)
    scales = {
        float(v) for k, v in gm.named_buffers() if "_scale_" in k and not k.startswith("0_input") and v.dim() == 0
    }
    assert len(scales) == 1


def test_the_prepared_model_is_not_changed() -> None:
    prepared = qfx.prepare_fx(Net().eval(), MAPPING, (X,))
    prepared(X)
    before, text = copy.deepcopy(prepared.state_dict()), str(prepared.graph)
    qfx.convert_to_reference_fx(prepared)
    assert str(prepared.graph) == text
    assert all(torch.equal(a, b) for a, b in zip(before.values(), prepared.state_dict().values(), strict=True))
    again = [
        qfx.convert_to_reference_fx(p)(X)
        for p in (prepared, copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared)))
    ]
    assert torch.equal(again[0], again[1])
    assert torch.equal(again[0], again[2])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda gm: pickle.loads(pickle.dumps(gm))])
def test_copies_compute_the_same(way: Any) -> None:
    gm = converted(Net(), X)
    assert torch.equal(way(gm)(X), gm(X))


def test_state_dict_round_trip_is_strict() -> None:
    first, second = converted(Net(), X), converted(Net(), X * 2)
    assert not torch.equal(first(X), second(X))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(X), second(X))


def test_no_calibration_warns_once_and_is_an_error_when_strict() -> None:
    prepared = qfx.prepare_fx(Net().eval(), MAPPING, (X,))
    with pytest.warns(UserWarning, match="doubtful") as caught:
        gm = qfx.convert_to_reference_fx(prepared)
    assert len(caught) == 1
    assert "never ran" in str(caught[0].message)
    gm(X)
    with pytest.raises(DowngradeError, match="Run the prepared model on representative"):
        qfx.convert_to_reference_fx(prepared, strict=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_calibration_data_is_reported(bad: float) -> None:
    prepared = qfx.prepare_fx(Net().eval(), MAPPING, (X,))
    prepared(X)
    spoiled = X.clone()
    spoiled[0, 0, 0, 0] = bad
    prepared(spoiled)
    with pytest.warns(UserWarning, match="doubtful"):
        qfx.convert_to_reference_fx(prepared)


def test_infinity_in_one_batch_does_not_spoil_the_result() -> None:
    extremes = qfx.QConfigMapping().set_global(
        qfx.QConfig(
            activation=qfx.MinMaxObserver.with_args(quant_max=127, quant_min=0), weight=qfx.default_weight_observer
        )
    )
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval()
    prepared = qfx.prepare_fx(model, extremes, (X,))
    prepared(X)
    spoiled = X.clone()
    spoiled[0, 0, 0, 0] = float("inf")
    prepared(spoiled)
    with pytest.warns(UserWarning, match="saw infinity") as caught:
        gm = qfx.convert_fx(prepared)
    assert len(caught) == 1
    assert float((gm(X) - model(X)).detach().abs().max()) < 0.05
    assert any("saw infinity" in note for entry in qfx.explain(gm) for note in entry.notes)
    with pytest.raises(DowngradeError, match="saw infinity"):
        qfx.convert_fx(prepared, strict=True)


def test_only_prepared_models_are_taken() -> None:
    with pytest.raises(ConfigError, match="call prepare_fx on the model first"):
        qfx.convert_to_reference_fx(torch.fx.symbolic_trace(Net()))


def test_a_model_on_another_device_is_refused_by_name() -> None:
    prepared = qfx.prepare_fx(nn.Sequential(nn.Linear(4, 4)).eval(), MAPPING, (torch.randn(2, 4),)).to("meta")
    with pytest.raises(
        ConfigError, match=r"0\.weight is on meta, and the quantized kernels run on the CPU only; call .cpu"
    ):
        qfx.convert_fx(prepared)


def test_own_passes_run_after_the_stage_they_are_named_for() -> None:
    seen: dict[str, list[str]] = {}

    def look(stage: str) -> qfx.FunctionPass:
        def note(gm: torch.fx.GraphModule, context: Any) -> bool:
            seen[stage] = [str(n.target) for n in gm.graph.nodes if n.op.startswith("call")]
            return False

        return qfx.FunctionPass(stage, note)

    prepared = qfx.prepare_fx(nn.Sequential(nn.Linear(4, 4)).eval(), MAPPING, (X[:, 0, 0, :4],))
    prepared(X[:, 0, 0, :4])
    qfx.convert_fx(prepared, passes={"convert": [look("convert")], "lower": [look("lower")]})
    assert len(seen["convert"]) == 5  # quantize, dequantize, the layer, quantize, dequantize
    assert len(seen["lower"]) == 3
    with pytest.raises(ConfigError, match="no stage is called fuse; passes= takes convert, lower"):
        qfx.convert_fx(prepared, passes={"fuse": []})


@pytest.mark.parametrize("batch", [X[:0], torch.full_like(X, float("nan"))])
def test_an_observer_without_a_range_is_one_warning(batch: torch.Tensor) -> None:
    prepared = qfx.prepare_fx(Net().eval(), MAPPING, (X,))
    prepared(batch)
    with pytest.warns(UserWarning, match="statistics of .* values are doubtful") as caught:
        qfx.convert_fx(prepared)(X)
    assert len(caught) == 1


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_an_op_left_float_stays_so_between_quantized_values(target: str) -> None:
    class TwoSums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.add(self.fc(x), x)
            return torch.add(y, y)

    qconfig = qfx.get_default_qconfig("x86")
    mapping = qfx.QConfigMapping().set_object_type(nn.Linear, qconfig)
    mapping.set_module_name_object_type_order("", torch.add, 1, qconfig)
    x = torch.randn(3, 4)
    prepared = qfx.prepare_fx(TwoSums().eval(), mapping, (x,))
    prepared(x)
    found = {e.op: e for e in qfx.explain(qfx.convert_fx(prepared, target=target)).entries if e.status == "float"}
    assert found["add"].reasons == ("the config leaves it float (global)",)


def test_a_tensor_fetched_by_two_nodes_is_the_weight_of_both_layers() -> None:
    """Attributes that are no parameters are fetched anew by each reader."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = torch.randn(5, 5), torch.zeros(5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(F.linear(x, self.w, self.b), self.w, self.b)

    x = torch.randn(4, 5)
    prepared = qfx.prepare_fx(Twice().eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    int8 = qfx.convert_fx(prepared)
    assert len(int8.graph.find_nodes(op="call_function", target=torch.ops.quantized.linear)) == 2
    assert qfx.summary(int8).nodes["boundary"] == 2


def test_calls_keep_their_stack_trace() -> None:
    x = torch.randn(2, 3)
    prepared = qfx.prepare_fx(nn.Sequential(nn.Linear(3, 2)).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    for gm in (prepared, qfx.convert_to_reference_fx(prepared), qfx.convert_fx(prepared)):
        (linear,) = gm.graph.find_nodes(op="call_module", target="0")
        assert 'test_convert.py", line ' in linear.stack_trace
