from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.graph_module import _USER_PRESERVED_ATTRIBUTES_KEY

import qfx
from qfx.errors import ConfigError, DowngradeError, ModelStateError
from qfx.observers.passive import FollowingObserver
from qfx.passes import Pass

MAPPING = qfx.get_default_qconfig_mapping("x86")


def prepared(
    model: nn.Module, *example: Any, mapping: qfx.QConfigMapping = MAPPING, **how: Any
) -> qfx.ObservedGraphModule:
    return qfx.prepare_fx(model.eval(), mapping, example, **how)


def shape(gm: torch.fx.GraphModule) -> list[str]:
    """The graph as names of what is called, with ``*`` for an observer."""
    return [
        "*" if str(n.target).startswith("activation_post_process") else getattr(n.target, "__name__", str(n.target))
        for n in gm.graph.nodes
        if n.op.startswith("call")
    ]


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 4)
        self.relu6 = nn.ReLU6()

    def forward(self, x: Any, *more: Any) -> Any:
        return self.function(self, x)


X = torch.randn(2, 4, 6, 6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m, x: m.conv(x), ["*", "conv", "*"]),
        (lambda m, x: F.relu(m.conv(x)), ["*", "conv", "*"]),
        (lambda m, x: m.relu6(m.conv(x)), ["*", "conv", "relu6", "*"]),
        (lambda m, x: torch.clamp(m.conv(x), 0, 3), ["*", "conv", "clamp", "*"]),
        (lambda m, x: F.hardtanh(F.conv2d(x, m.conv.weight)), ["*", "*", "conv2d", "hardtanh", "*"]),
        (lambda m, x: m.conv(x) + x, ["*", "conv", "*", "add", "*"]),
        (lambda m, x: F.relu(m.conv(x) + x), ["*", "conv", "*", "add", "relu", "*"]),
        (lambda m, x: F.gelu(m.conv(x)), ["*", "conv", "*", "gelu"]),
        (lambda m, x: m.conv(F.gelu(x)), ["gelu", "*", "conv", "*"]),
        (lambda m, x: torch.cat([x, m.conv(x)], 1), ["*", "conv", "*", "cat", "*"]),
        (lambda m, x: F.pad(m.conv(x), (1, 1)), ["*", "conv", "*", "pad", "*"]),
        (lambda m, x: m.conv(x).view(x.size(0), -1), ["*", "conv", "*", "size", "view", "*"]),
    ],
)
def test_where_observers_go(function: Any, expected: list[str]) -> None:
    model = Function(function)
    gm = prepared(model, X)
    assert shape(gm) == expected
    torch.testing.assert_close(gm(X), model(X))


def test_the_value_before_a_clamp_is_never_observed() -> None:
    gm = prepared(Function(lambda m, x: m.relu6(m.conv(x) * 1000)), X)
    gm(X)
    last = [n for n in gm.graph.nodes if n.op == "call_module"][-1]
    assert float(gm.get_submodule(last.target).max_val) == 6.0


def test_a_clamp_others_look_behind_is_not_absorbed() -> None:
    def seen(m: Any, x: Any) -> Any:
        y = m.conv(x)
        return m.relu6(y) + y

    assert shape(prepared(Function(seen), X)) == ["*", "conv", "*", "relu6", "*", "add", "*"]


def observers(gm: torch.fx.GraphModule) -> dict[str, int]:
    return {
        str(n.target): id(gm.get_submodule(str(n.target))) for n in gm.graph.nodes if "post_process" in str(n.target)
    }


def test_values_with_the_same_parameters_share_one_observer() -> None:
    gm = prepared(Function(lambda m, x: F.max_pool2d(m.conv(x), 2).flatten(1)), X)
    first, *rest = observers(gm).values()
    assert len(set(rest)) == 1
    assert first not in rest


def test_a_split_shares_with_its_items() -> None:
    def halves(m: Any, x: Any) -> Any:
        a, b = m.conv(x).chunk(2, 1)
        return torch.cat([b, a], 1)

    gm = prepared(Function(halves), X)
    assert shape(gm) == ["*", "conv", "*", "chunk", "getitem", "*", "getitem", "*", "cat", "*"]
    of_layer, first, second, of_join = (gm.get_submodule(name) for name in list(observers(gm))[1:])
    assert of_layer is of_join
    assert type(first) is type(second) is FollowingObserver


class Parts(nn.Module):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part, self.first, self.a, self.b = part, nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.first(x)
        return self.a(self.part(y)), self.b(y)


@pytest.mark.parametrize(
    "part",
    [
        lambda y: y[:, 0],
        lambda y: y.chunk(2, 1)[0],
        lambda y: y.unbind(1)[0],
        lambda y: y.select(1, 0),
        lambda y: y.clone(),
        lambda y: y[:, :2].flip(1),
    ],
    ids=["index", "chunk", "unbind", "select", "clone", "two"],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_part_of_a_value_does_not_pull_its_average(part: Any, training: bool) -> None:
    x = torch.randn(8, 4, 8) * torch.tensor([0.05, 0.05, 1, 1])[:, None]
    average = qfx.QConfig(qfx.MovingAverageMinMaxObserver.with_args(reduce_range=True), qfx.default_weight_observer)
    calibrated = qfx.QConfigMapping().set_global(average)
    trained = qfx.get_default_qat_qconfig_mapping("x86")
    model = Parts(part).train(training)
    prepare: Any = qfx.prepare_qat_fx if training else qfx.prepare_fx
    prepared = prepare(model, trained if training else calibrated, (x,))
    for _ in range(20):
        prepared(x)
    watcher = next(iter(next(n for n in prepared.graph.nodes if n.name == "first").users))
    scale, _ = prepared.get_submodule(str(watcher.target)).calculate_qparams()
    values = model.first(x).detach() if not training else prepared.first(prepared.activation_post_process_0(x)).detach()
    assert float(scale) == pytest.approx(float(values.max() - values.min()) / 127, rel=0.05)
    int8 = qfx.convert_fx(prepared.eval(), strict=True)
    assert qfx.summary(int8).coverage_nodes == 1.0
    expected = qfx.convert_to_reference_fx(prepared)(x)
    for found, each in zip(int8(x), expected, strict=True):
        assert float((found - each).abs().max()) < 0.02


def test_a_fixed_range_is_not_shared_with_another() -> None:
    gm = prepared(Function(lambda m, x: torch.cat([torch.sigmoid(x), m.conv(x)], 1)), X)
    kinds = [type(m).__name__ for name, m in gm.named_modules() if "post_process" in name]
    assert "FixedQParamsObserver" in kinds
    gm(X)  # runs, each with its own


def test_containers_and_integers_are_not_observed() -> None:
    class Inputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.table = nn.Linear(4, 4), nn.Embedding(5, 4)

        def forward(self, x: dict[str, torch.Tensor], index: torch.Tensor) -> torch.Tensor:
            return self.fc(x["a"]) + self.table(index + 1)

    x, index = {"a": torch.randn(3, 4)}, torch.tensor([0, 1, 2])
    model = Inputs()
    gm = prepared(model, x, index)
    torch.testing.assert_close(gm(x, index), model(x, index))
    assert shape(gm) == ["getitem", "*", "fc", "*", "add", "table", "*", "add", "*"]
    assert gm.plan["float"] == {
        "getitem": "it takes an item out of an input, and computes no float tensor",
        "table": "its inputs are indices, so only its table can be quantized, by "
        "float_qparams_weight_only_qconfig (global)",
    }


def test_reasons_are_kept() -> None:
    mapping = qfx.get_default_qconfig_mapping("x86").set_module_name("conv", None)
    gm = prepared(Function(lambda m, x: F.gelu(m.conv(x))), X, mapping=mapping)
    assert gm.plan["float"] == {
        "conv": "the config leaves it float (module_name 'conv')",
        "gelu": "no pattern of the backend has gelu as its last op",
    }
    asked = qfx.QConfig(qfx.MinMaxObserver.with_args(dtype=torch.qint8), qfx.default_weight_observer)
    with pytest.warns(UserWarning, match="nothing can be quantized"):
        gm = prepared(Function(lambda m, x: m.conv(x)), X, mapping=qfx.QConfigMapping().set_global(asked))
    assert "the backend takes torch.quint8, the config asks for torch.qint8" in gm.plan["float"]["conv"]


def test_a_backend_that_names_one_spelling_is_honoured() -> None:
    native = next(c for c in qfx.config.get_native_backend_config().configs if c.pattern is nn.Linear)
    only = qfx.BackendConfig("mine").set_backend_pattern_config(native)
    model = Function(lambda m, x: F.linear(m.fc(x), m.fc.weight))
    assert shape(prepared(model, torch.randn(2, 4), backend_config=only)) == ["*", "fc", "*", "linear"]


def test_reusing_an_input_needs_one_with_parameters() -> None:
    def reshaped(m: Any, x: Any) -> Any:
        return m.fc(x.reshape(-1, 4)).reshape(2, -1)

    gm = prepared(Function(reshaped), torch.randn(2, 8))
    assert shape(gm) == ["reshape", "*", "fc", "*", "reshape", "*"]
    assert "it reuses its input's parameters, and that has none" in gm.plan["float"]["reshape"]


def test_unmatched_entries_are_listed() -> None:
    mapping = qfx.get_default_qconfig_mapping("x86").set_module_name("cnov", None)
    with pytest.warns(UserWarning, match="matches nothing in the model: module_name 'cnov'"):
        prepared(Function(lambda m, x: m.conv(x)), X, mapping=mapping)
    with pytest.raises(DowngradeError, match="cnov"):
        prepared(Function(lambda m, x: m.conv(x)), X, mapping=mapping, strict=True)


def test_bad_requests_are_refused() -> None:
    model = Function(lambda m, x: m.conv(x))
    with pytest.raises(ConfigError, match="needs a QConfigMapping"):
        qfx.prepare_fx(model.eval(), None, (X,))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="example_inputs is a tuple"):
        qfx.prepare_fx(model.eval(), MAPPING, 3)  # type: ignore[arg-type]
    with pytest.raises(ModelStateError, match=r"Call model\.eval"):
        qfx.prepare_fx(nn.Sequential(nn.BatchNorm2d(4)).train(), MAPPING, (X,))
    with pytest.raises(ConfigError, match="no stage is called lower"):
        prepared(model, X, passes={"lower": []})


def test_one_tensor_is_an_example_too() -> None:
    model = Function(lambda m, x: m.conv(x)).eval()
    assert qfx.prepare_fx(model, MAPPING, X).code == qfx.prepare_fx(model, MAPPING, (X,)).code


def test_a_shape_that_is_left_out_is_no_reason_to_fail() -> None:
    observed = qfx.prepare_fx(Function(lambda m, x: m.conv(x).reshape()).eval(), MAPPING, (X,))
    with pytest.warns(UserWarning, match="never ran"):
        gm = qfx.convert_fx(observed)
    assert [node.target for node in gm.graph.nodes if node.op == "call_method"] == ["reshape", "dequantize"]


def test_preserved_attributes_are_where_torch_fx_looks_for_them() -> None:
    model = Function(lambda m, x: m.conv(x)).eval()
    model.classes = 3
    custom = qfx.PrepareCustomConfig().set_preserved_attributes(["classes"])
    gm = qfx.prepare_fx(model, MAPPING, (X,), custom)
    assert copy.deepcopy(gm).meta[_USER_PRESERVED_ATTRIBUTES_KEY] == {"classes": 3}


def test_a_pass_of_your_own_runs_after_its_stage() -> None:
    @qfx.pattern
    def doubled(x: Any) -> Any:
        return qfx.ops.add(x, x)

    @qfx.rule(doubled)
    def times_two(m: Any, g: qfx.Rewriter) -> Any:
        return g.call(qfx.ops.mul, m.x, 2)

    gm = prepared(Function(lambda m, x: x + x), X, passes={"fuse": [Pass("mine", (times_two,))]})
    assert "mul" in shape(gm)


def test_the_model_is_not_changed_and_copies_are_whole() -> None:
    model = Function(lambda m, x: m.relu6(m.conv(x))).eval()
    before = copy.deepcopy(model.state_dict())
    gm = prepared(model, X)
    gm(X * 3)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    for other in (copy.deepcopy(gm), pickle.loads(pickle.dumps(gm))):
        assert isinstance(other, qfx.ObservedGraphModule)
        assert torch.equal(other(X), gm(X))
        assert other.plan["float"] == gm.plan["float"]


def test_preserved_attributes() -> None:
    model = Function(lambda m, x: m.conv(x)).eval()
    model.classes = ["cat", "dog"]
    custom = qfx.PrepareCustomConfig().set_preserved_attributes(["classes"])
    assert prepared(model, X, prepare_custom_config=custom).classes == ["cat", "dog"]


def test_fuse_fx() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()).eval()
    model[1].running_mean.normal_()
    fused = qfx.fuse_fx(model)
    assert isinstance(fused, qfx.FusedGraphModule)
    assert shape(fused) == ["0"]
    torch.testing.assert_close(fused(X), model(X))
    with pytest.raises(ModelStateError):
        qfx.fuse_fx(model.train())


def test_only_float32_models_are_taken() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).double().eval()
    with pytest.raises(ModelStateError, match=r"0.weight is torch.float64.*call model.float\(\)"):
        qfx.prepare_fx(model, MAPPING, (torch.randn(2, 4),))
    gm = qfx.prepare_fx(model, MAPPING.__class__(), (torch.randn(2, 4),))  # nothing of it is to be quantized
    assert gm(torch.randn(2, 4).double()).dtype is torch.float64
    with pytest.raises(ModelStateError, match=r"Param\(w\) is torch.float16"):
        qfx.prepare_fx(HalfWeight().eval(), MAPPING, (torch.randn(2, 4),))


class HalfWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4).half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w)


def test_a_model_is_prepared_once() -> None:
    x = torch.randn(2, 4)
    gm = qfx.prepare_fx(nn.Sequential(nn.Linear(4, 4)).eval(), MAPPING, (x,))
    gm(x)
    with pytest.raises(ConfigError, match="this ObservedGraphModule is prepared already"):
        qfx.prepare_fx(gm, MAPPING, (x,))
    with pytest.raises(ConfigError, match="this QuantizedGraphModule is prepared already"):
        qfx.prepare_fx(qfx.convert_fx(gm), MAPPING, (x,))


@pytest.mark.parametrize("version", [0, 1])
def test_fake_quantize_modules_serve_as_observers(version: int) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).eval(), torch.randn(2, 3, 8, 8)
    gm = qfx.prepare_fx(model, qfx.get_default_qat_qconfig_mapping("x86", version), (x,))
    with torch.no_grad():
        rounded = gm(x)
    int8 = qfx.convert_fx(gm, strict=True)
    # what training saw is what comes out
    torch.testing.assert_close(int8(x), rounded.detach(), rtol=0, atol=float(gm.activation_post_process_1.scale) * 1.01)
    assert qfx.summary(int8).coverage_macs == 1.0


def test_one_tensor_tells_fuse_fx_its_rank() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    for x, kept in ((torch.randn(2, 4), ["0"]), (torch.randn(2, 4, 4), ["0", "1"])):
        assert [name for name, _ in qfx.fuse_fx(model, example_inputs=x).named_children()] == kept  # type: ignore[arg-type]


def test_a_reader_of_a_part_may_have_an_observer_of_its_own() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.plain, self.signed = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> Any:
            part = self.first(x)[:, :2]
            return self.plain(part), self.signed(part)

    mapping = qfx.get_default_qconfig_mapping("x86").set_module_name("signed", qfx.default_dynamic_qconfig)
    x = torch.randn(4, 3, 8)
    prepared = qfx.prepare_fx(Net().eval(), mapping, (x,))
    (reader,) = (n for n in prepared.graph.nodes if n.target == "signed")
    assert type(prepared.get_submodule(str(reader.args[0].target))) is qfx.PlaceholderObserver  # type: ignore[union-attr]
    prepared(x)
    made = qfx.convert_fx(prepared, strict=True)
    assert type(made.signed).__module__.startswith("qfx.nn.quantized.dynamic")


def test_what_a_given_backend_lists_is_observed_as_it_says() -> None:
    flatten = qfx.BackendPatternConfig(nn.Flatten).set_observation_type(
        qfx.ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT
    )
    dtypes = [qfx.DTypeConfig(torch.quint8, torch.quint8)]
    backend = qfx.get_native_backend_config().set_backend_pattern_config(flatten.set_dtype_configs(dtypes))
    model, x = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 4)).eval(), torch.randn(2, 4, 8, 8)
    ours = qfx.prepare_fx(model, MAPPING, (x,))
    given = qfx.prepare_fx(model, MAPPING, (x,), backend_config=backend)
    kinds = [[type(gm.get_submodule(name)) for name in observers(gm)].count(FollowingObserver) for gm in (ours, given)]
    assert kinds == [1, 0]
