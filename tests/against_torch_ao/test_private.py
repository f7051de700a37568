"""Private names scripts import: the same answers as the original's, where ours has the same meaning."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.compat.private import arguments, backends, dtype_configs, matches, op_configs, patterns, qconfigs, scripts
from qfx.compat.private.handlers import _get_pattern_to_quantize_handlers
from qfx.compat.private.layer_noise import get_layer_sqnr_dict
from qfx.config.backend_config import dtypes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),  # the original's own
]
ao = pytest.importorskip("torch.ao.quantization")
pytest.importorskip("torch.ao.quantization.quantize_fx")  # loads what its backend configs look for
configs = pytest.importorskip("torch.ao.quantization.backend_config")


def theirs(name: str) -> Any:
    return importlib.import_module(f"torch.ao.quantization.{name}")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu, self.fc = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.Linear(2, 2)
        self.w = nn.Parameter(torch.randn(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn(self.conv(x)))
        z = F.linear(F.relu(y + x), self.w, bias=None)
        return torch.cat([self.fc(z), z.reshape(1, 1, 2, 2)])


def plain(value: Any) -> Any:
    """A configuration in terms both sides share: classes and functions by name, constraints as tuples."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "scale_exact_match"):
        return [str(value.dtype), value.scale_exact_match, value.zero_point_exact_match, value.scale_min_lower_bound]
    if isinstance(value, type):
        return f"{value.__name__} in training" if ".qat" in value.__module__ else value.__name__
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("engine", ["native", "fbgemm", "x86", "qnnpack", "onednn", "executorch"])
def test_the_dtypes_of_an_engine(engine: str) -> None:
    old = theirs(f"backend_config.{engine}")
    names = [name for name, value in vars(old).items() if isinstance(value, configs.DTypeConfig)]
    assert len(names) >= 5
    for name in names:
        assert plain(getattr(dtype_configs, name).to_dict()) == plain(getattr(old, name).to_dict()), name


def test_there_is_no_dtype_config_of_another_name() -> None:
    with pytest.raises(AttributeError, match="no dtype config is called 'warp_dtype_config'"):
        dtype_configs.warp_dtype_config


FAMILIES = [name for name in vars(op_configs) if name.startswith("_get_") and name.endswith("_configs")]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_patterns(name: str) -> None:
    old = theirs("backend_config._common_operator_config_utils")
    original = configs.DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8, weight_dtype=torch.qint8)
    ours = qfx.DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8, weight_dtype=torch.qint8)
    keys = ("pattern", "observation_type", "dtype_configs", "root_module", "qat_module", "fused_module")
    tables = []
    for made in (getattr(op_configs, name)([ours]), getattr(old, name)([original])):
        rows = [{key: plain(each.to_dict().get(key)) for key in keys} for each in made]
        tables.append({str(row["pattern"]): row for row in rows})  # the last one of a pattern counts
    assert tables[0] == tables[1]


def test_concatenation_and_fixed_parameters() -> None:
    old = theirs("backend_config._common_operator_config_utils")
    assert op_configs._get_cat_config([dtypes.default_op_quint8]).pattern is torch.cat
    limits = {"dtype": torch.quint8, "scale_exact_match": 1.0 / 256, "zero_point_exact_match": 0}
    ours = op_configs._add_fixed_qparams_to_dtype_configs(
        [dtypes.default_op_quint8, dtypes.default_op_fp16], qfx.DTypeWithConstraints(**limits)
    )
    native = theirs("backend_config.native")
    original = old._add_fixed_qparams_to_dtype_configs(
        [native.default_op_quint8_dtype_config, native.default_op_fp16_dtype_config],
        configs.DTypeWithConstraints(**limits),
    )
    assert plain([each.to_dict() for each in ours]) == plain([each.to_dict() for each in original])


@pytest.mark.parametrize("name", ["native", "onednn"])
def test_matches_in_the_old_form(name: str) -> None:
    gm = torch.fx.symbolic_trace(Net().eval())
    modules = dict(gm.named_modules())
    backend = getattr(qfx, f"get_{name}_backend_config")()
    found = matches._find_matches(
        gm.graph,
        modules,
        patterns._sorted_patterns_dict(_get_pattern_to_quantize_handlers(backend)),
        backends.get_fusion_pattern_to_root_node_getter(backend),
        custom_module_classes=[nn.Linear],
    )
    original = getattr(configs, f"get_{name}_backend_config")()
    expected = theirs("fx.match_utils")._find_matches(
        gm.graph,
        modules,
        theirs("fx.pattern_utils")._sorted_patterns_dict(
            theirs("fx.quantize_handler")._get_pattern_to_quantize_handlers(original)
        ),
        theirs("backend_config.utils").get_fusion_pattern_to_root_node_getter(original),
        custom_module_classes=[nn.Linear],
    )
    assert set(found) == set(expected)
    for key, (last, nodes, pattern, handler) in expected.items():
        assert found[key][0] is last
        assert found[key][1] == (nodes if isinstance(nodes, list) else [nodes])
        assert found[key][2] == pattern
        assert found[key][3].is_custom_module() == handler.is_custom_module()


def test_the_configuration_of_every_node() -> None:
    gm, found = Net().eval(), []
    for library, generate in (
        (qfx, qconfigs._generate_node_name_to_qconfig),
        (ao, theirs("fx.qconfig_mapping_utils")._generate_node_name_to_qconfig),
    ):
        tracer = theirs("fx.tracer").QuantizationTracer([], [])
        graph = tracer.trace(gm)
        one, two, three = (
            library.QConfig(library.MinMaxObserver.with_args(quant_min=0, quant_max=n), library.MinMaxObserver)
            for n in (50, 60, 70)
        )
        mapping = (
            library.QConfigMapping().set_global(one).set_object_type(nn.Linear, two).set_object_type("reshape", three)
        )
        mapping.set_module_name("conv", None).set_module_name_regex("re.*", two)
        mapping.set_module_name_object_type_order("", F.relu, 0, three)
        made = generate(gm, dict(gm.named_modules()), graph, mapping, tracer.node_name_to_scope)
        found.append({name: qconfig and qconfig.activation().quant_max for name, qconfig in made.items()})
    assert found[0] == found[1]
    assert set(found[0].values()) == {50, 60, 70, None}


class Arguments(nn.Module):
    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, w, b)
        x = F.linear(x, weight=w, bias=b)
        x = x.view(2, 2).permute(1, 0).unsqueeze(0).transpose(0, 1)
        return x.masked_fill(x > 0, 1.5) + x.size(0) + x.repeat(1, 1)


def test_what_arguments_stand_for() -> None:
    gm = torch.fx.symbolic_trace(Arguments())
    x, w, b = gm.graph.find_nodes(op="placeholder")
    for node in gm.graph.find_nodes(op="call_function", target=F.linear):
        assert arguments.node_arg_is_weight(node, w)
        assert arguments.node_arg_is_bias(node, b)
        assert not arguments.node_arg_is_weight(node, x)
    assert not arguments.node_arg_is_bias(x, b)
    original = theirs("fx.utils").get_non_observable_arg_indexes_and_types
    answered = 0
    for node in gm.graph.nodes:
        ours, expected = arguments.get_non_observable_arg_indexes_and_types(node), original(node)
        assert {kind: of(node) for kind, of in ours.items()} == {kind: of(node) for kind, of in expected.items()}
        answered += bool(ours)
    assert answered >= 6


def test_backend_entries_are_printed_alike() -> None:
    original = theirs("backend_config.utils")
    assert backends.pattern_to_human_readable((nn.ReLU, F.max_pool2d)) == original.pattern_to_human_readable(
        (nn.ReLU, F.max_pool2d)
    )
    assert backends.remove_boolean_dispatch_from_name(F.relu) is F.relu
    entry = configs.get_native_backend_config().configs[0].to_dict()
    assert backends.entry_to_pretty_str(entry) == original.entry_to_pretty_str(entry)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.body = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.w = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.body(self.first(x)), self.w)


CONVOLUTIONS = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize(("model", "shape"), [(Branches(), (6, 3)), (CONVOLUTIONS, (2, 3, 8, 8))])
def test_the_noise_of_each_layer(model: nn.Module, shape: tuple[int, ...]) -> None:
    x, found = torch.randn(shape), []
    fx = theirs("quantize_fx")
    for library, functions, noise in (
        (qfx, qfx, get_layer_sqnr_dict),
        (ao, fx, theirs("fx._equalize").get_layer_sqnr_dict),
    ):
        prepared = functions.prepare_fx(model.eval(), library.get_default_qconfig_mapping("fbgemm"), (x,))
        prepared(x)
        converted = functions.convert_fx(copy.deepcopy(prepared))
        found.append(noise(prepared, converted, x))
    assert found[1]
    assert set(found[0]) == set(found[1])
    for path, expected in found[1].items():
        torch.testing.assert_close(found[0][path], expected, msg=path)


# Observers run on the device, later: what observes asks them before they did, with either side's warning.
@pytest.mark.filterwarnings("ignore:.*observer:UserWarning")
def test_on_device_quantization() -> None:
    torch.manual_seed(0)
    model, x, results = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval(), torch.randn(3, 4), []
    for library, quantize in (
        (qfx, scripts._quantize_ondevice_dynamic_jit),
        (ao, theirs("quantize_jit")._quantize_ondevice_dynamic_jit),
    ):
        made = quantize(torch.jit.script(copy.deepcopy(model)), {"": library.default_dynamic_qconfig})
        made.observe_forward(x)
        made.quantize_forward(x)
        results.append((set(made._c._method_names()), made.quantized_forward(x)))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
