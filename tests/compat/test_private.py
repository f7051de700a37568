"""Private names scripts import from ``fx.*`` and ``quantize_*``, by what they do."""

from __future__ import annotations

import copy
import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.compat.private import arguments, flows, graph_modules, matches, qconfigs, scripts
from qfx.compat.private.handlers import CustomModuleQuantizeHandler
from qfx.compat.private.layer_noise import get_layer_sqnr_dict
from qfx.config.backend_config import dtypes
from qfx.errors import ConfigError
from qfx.nn import intrinsic, qat, quantizable

MAPPING = qfx.get_default_qconfig_mapping("x86")


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.fc(self.bn(self.conv(x)).mean((2, 3))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Body(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


X = torch.randn(2, 3, 4, 4)


def traced(model: nn.Module) -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(model)


def kinds(gm: nn.Module) -> set[str]:
    return {type(module).__name__ for module in gm.modules()}


def test_fusing_for_inference_folds_and_for_training_collects() -> None:
    model = Model()
    assert "ConvBn2d" in kinds(flows._fuse_fx(traced(model.train()), is_qat=True))
    assert "BatchNorm2d" not in kinds(flows.fuse(traced(model.eval()), is_qat=False))
    with pytest.raises(ConfigError, match="input model must be a GraphModule"):
        flows._fuse_fx(model, is_qat=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_qat", [False, True])
def test_a_graph_module_traced_by_hand_is_prepared_with_its_scopes(is_qat: bool) -> None:
    tracer = qfx.QuantizationTracer([], [])
    model = Model().train(is_qat)
    gm = torch.fx.GraphModule(model, tracer.trace(model))
    default = qfx.get_default_qat_qconfig_mapping("x86") if is_qat else copy.deepcopy(MAPPING)
    mapping = default.set_module_name("body.fc", None)
    made = flows.prepare(gm, mapping, is_qat, tracer.node_name_to_scope, (X,))
    before = [node.name for node in gm.graph.nodes]
    made(X)
    int8: Any = flows.convert(made.eval())
    assert type(int8.get_submodule("body.fc")) is intrinsic.LinearReLU  # float
    assert type(int8.get_submodule("head")) is qfx.nn.quantized.Linear
    assert [node.name for node in gm.graph.nodes] == before


def test_a_standalone_module_by_itself() -> None:
    made = flows._prepare_standalone_module_fx(
        nn.Sequential(nn.Linear(3, 3)).eval(), MAPPING, False, (torch.ones(1, 3),)
    )
    assert isinstance(made, qfx.ObservedStandaloneGraphModule)
    made(torch.ones(1, 3))
    assert "Linear" in kinds(flows._convert_standalone_module_fx(made))
    reference: Any = flows._convert_standalone_module_fx(made, is_reference=True)
    assert type(reference.get_submodule("0")) is qfx.nn.quantized.reference.Linear


def test_attributes_are_put_on_a_model() -> None:
    gm = traced(nn.Sequential(nn.ReLU()))
    flows.attach_preserved_attrs_to_model(gm, {"classes": ["cat", "dog"]})
    assert gm.classes == ["cat", "dog"]
    assert gm.meta[flows._USER_PRESERVED_ATTRIBUTES_KEY] == {"classes": ["cat", "dog"]}


def test_what_a_prepared_model_knows() -> None:
    prepared = qfx.prepare_fx(Model().eval(), MAPPING, (X,))
    known = graph_modules._get_observed_graph_module_attr
    scopes = known(prepared, "node_name_to_scope")
    assert scopes["head"] == ("head", nn.Linear)
    assert scopes["no such node"][0] == ""
    assert known(prepared, "qconfig_mapping") is prepared.plan["mapping"]
    assert set(known(prepared, "node_name_to_qconfig")) >= {"head"}
    assert known(prepared, "is_observed_standalone_module") is False
    prepared(X)
    assert known(qfx.convert_fx(prepared), "node_name_to_scope")["head"][0] == "head"
    with pytest.raises(ConfigError, match="qfx keeps no 'is_qat' of a prepared model"):
        known(prepared, "is_qat")
    with pytest.raises(ConfigError, match="Model was not made by prepare_fx"):
        known(Model(), "qconfig_mapping")


def test_fused_classes_are_configured_as_their_parts() -> None:
    gm = flows._fuse_fx(traced(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()), is_qat=False)
    mapping = qfx.QConfigMapping()
    for cls in (nn.Conv2d, nn.ReLU):
        mapping.set_object_type(cls, qfx.default_qconfig)
    qconfigs._update_qconfig_for_fusion(gm, mapping)
    assert mapping.object_type_qconfigs[intrinsic.ConvReLU2d] is qfx.default_qconfig
    mapping.set_object_type(nn.ReLU, None)
    with pytest.raises(ConfigError, match=r"we need to specify the same qconfigs for all module types in .*ConvReLU2d"):
        qconfigs._update_qconfig_for_fusion(gm, mapping)


def test_classes_that_train_are_configured_as_those_they_stand_for() -> None:
    mapping = qfx.QConfigMapping().set_object_type(nn.Linear, qfx.default_qconfig)
    qconfigs._update_qconfig_for_qat(mapping, qfx.get_native_backend_config())
    assert mapping.object_type_qconfigs[qat.Linear] is qfx.default_qconfig


def test_dtypes_suit_or_do_not() -> None:
    supported = qconfigs._is_qconfig_supported_by_dtype_configs
    assert supported(qfx.default_qconfig, [dtypes.dynamic_int8, dtypes.weighted_int8])
    assert not supported(qfx.default_qconfig, [dtypes.dynamic_int8])
    named = qfx.QConfigMapping().set_object_type(nn.Linear, None)
    qconfigs._compare_prepare_convert_qconfig_mappings(qfx.QConfigMapping(), named)
    with pytest.raises(ConfigError, match="Missing key object_type torch"):
        qconfigs._compare_prepare_convert_qconfig_mappings(named, qfx.QConfigMapping())


def test_codes_and_scales_a_backend_allows() -> None:
    suits = arguments._qconfig_satisfies_dtype_config_constraints
    narrow = qfx.DTypeWithConstraints(torch.quint8, quant_min_lower_bound=0, quant_max_upper_bound=127)
    assert suits(None, narrow)
    assert suits(qfx.default_qconfig, narrow)  # 7 bits
    assert not suits(qfx.get_default_qconfig("qnnpack"), narrow)
    symmetric = qfx.DTypeWithConstraints(torch.qint8, quant_min_lower_bound=-127, quant_max_upper_bound=127)
    assert not suits(qfx.default_qconfig, symmetric, is_activation=False)


def test_the_node_that_follows() -> None:
    gm = traced(Model())
    modules = dict(gm.named_modules())
    bn, fc = (gm.graph.find_nodes(op="call_module", target=name)[0] for name in ("body.bn", "body.fc"))
    conv = gm.graph.find_nodes(op="call_module", target="body.conv")[0]
    assert arguments.maybe_get_next_module(conv, modules, nn.BatchNorm2d) is bn
    assert arguments.maybe_get_next_module(conv, modules, nn.Linear) is None
    found = arguments.maybe_get_next_module(fc, modules, target_functional_type=F.relu)
    assert found is not None
    assert found.target is F.relu


def test_modules_tracing_keeps_whole() -> None:
    custom = qfx.PrepareCustomConfig().set_non_traceable_module_names(["a"]).set_non_traceable_module_classes([Body])
    custom.set_standalone_module_name("b", None, (), None, None)
    custom.set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    assert arguments.get_skipped_module_name_and_classes(custom, False) == (["a", "b"], [Body, nn.LSTM])
    assert arguments.get_skipped_module_name_and_classes(custom, True) == (["a"], [Body])


@pytest.mark.parametrize(
    ("in_float", "observed", "is_custom"),
    [
        (nn.LSTM(2, 2), quantizable.LSTM(2, 2), arguments._is_custom_module_lstm),
        (nn.MultiheadAttention(2, 1), quantizable.MultiheadAttention(2, 1), arguments._is_custom_module_mha),
    ],
)
def test_custom_modules_are_told(in_float: nn.Module, observed: nn.Module, is_custom: Any) -> None:
    graph = torch.fx.Graph()
    node = graph.call_module("m", (graph.placeholder("x"),))
    handler = CustomModuleQuantizeHandler(node, {}, is_custom_module=True)
    assert is_custom(node, {"m": observed})
    assert not is_custom(node, {"m": in_float})
    assert is_custom(node, {"m": in_float}, qfx.default_qconfig, handler)
    assert not is_custom(node, {"m": in_float}, qfx.default_dynamic_qconfig, handler)


def test_the_device_of_a_model() -> None:
    assert arguments.assert_and_get_unique_device(nn.Linear(1, 1)) == torch.device("cpu")
    assert arguments.assert_and_get_unique_device(nn.ReLU()) is None
    split = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"), nn.Linear(1, 1))
    with pytest.warns(UserWarning, match="partly on meta and partly on cpu"):
        assert arguments.assert_and_get_unique_device(split) == torch.device("cpu")


def test_noise_is_asked_of_a_prepared_model() -> None:
    with pytest.raises(ConfigError, match="takes what prepare_fx returned first, got Linear"):
        get_layer_sqnr_dict(nn.Linear(1, 1), traced(nn.ReLU()), torch.ones(1))  # type: ignore[arg-type]
    prepared = qfx.prepare_fx(Model().eval(), MAPPING, (X,))
    prepared(X)
    noise = get_layer_sqnr_dict(prepared, qfx.convert_fx(prepared), X)
    assert list(noise) == ["body.conv", "body.fc", "head"]
    assert all(float(each) > 10 for each in noise.values())


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated.*:DeprecationWarning")
def test_torchscript_by_kind() -> None:
    script = torch.jit.script(nn.Sequential(nn.Linear(3, 3)).eval())
    config = {"": qfx.default_qconfig}
    made = scripts._quantize_jit(script, config, lambda model, x: model(x), [torch.randn(2, 3)])
    assert "quantized::linear" in str(made.inlined_graph)
    dynamic = scripts._quantize_jit(script, {"": qfx.default_dynamic_qconfig}, quant_type=qfx.QuantType.DYNAMIC)
    assert "quantized::linear_dynamic" in str(dynamic.inlined_graph)
    with pytest.raises(ConfigError, match="Must provide calibration function"):
        scripts._quantize_jit(script, config)
    with pytest.raises(ConfigError, match="has no method 'backward'"):
        scripts._prepare_ondevice_jit(script, config, "backward")
    with pytest.raises(ConfigError, match="on-device quantization is dynamic only"):
        scripts._convert_ondevice_jit(script, "forward")
    with pytest.raises(ConfigError, match="give the method that was prepared, 'forward'"):
        scripts._convert_ondevice_dynamic_jit(script, "observe_forward")
    for check in (scripts._check_is_script_module, scripts._check_forward_method):
        with pytest.raises(ConfigError, match=r"must be a script module, got: .*Linear"):
            check(nn.Linear(1, 1))


@pytest.mark.parametrize(("index", "fits"), [(0, True), (1, False), (0.0, False)])
def test_a_number_in_a_pattern_is_that_number(index: float, fits: bool) -> None:
    pool = torch.ops.aten.max_pool2d_with_indices.default
    gm = traced(lambda x: pool(x, 2)[0])  # type: ignore[arg-type]
    taken = list(gm.graph.nodes)[2]
    assert matches._is_match({}, taken, (operator.getitem, pool, index)) is fits
