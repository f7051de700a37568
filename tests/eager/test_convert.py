"""What replaces what, what follows it, and what is said where it cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx import eager
from qfx.errors import QfxError
from qfx.nn import intrinsic, qat, quantized
from qfx.nn.errors import ModuleTypeError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
ENGINES = [e for e in ("x86", "fbgemm", "onednn", "qnnpack") if e in torch.backends.quantized.supported_engines]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = qfx.QuantStub(), qfx.DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.add, self.fc = quantized.FloatFunctional(), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(self.quant(x))))
        x = self.add.add(x, x).flatten(1)
        return self.dequant(self.fc(x))


def converted(engine: str = "x86", **options: Any) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = qfx.fuse_modules(Net().eval(), ["conv", "bn", "relu"])
    model.qconfig = qfx.get_default_qconfig(engine)
    prepared = qfx.prepare(model)
    x = torch.randn(4, 3, 8, 8)
    prepared(x)
    return qfx.convert(prepared, **options), model, x


def test_every_part_is_replaced_and_clean() -> None:
    model, float_model, x = converted()
    assert {name: type(module) for name, module in model.named_children()} == {
        "quant": quantized.Quantize,
        "dequant": quantized.DeQuantize,
        "conv": intrinsic.quantized.ConvReLU2d,
        "bn": nn.Identity,
        "relu": nn.Identity,
        "add": quantized.QFunctional,
        "fc": quantized.Linear,
    }
    assert not any(hasattr(module, "qconfig") or module._forward_hooks for module in model.modules())
    torch.testing.assert_close(model(x), float_model(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_scripts_and_states(engine: str) -> None:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        model, _, x = converted(engine)
        blank = converted(engine)[0]
        for module in blank.modules():
            if hasattr(module, "scale") and not isinstance(module.scale, torch.Tensor):
                module.scale = 9.0
        assert torch.equal(torch.jit.script(model)(x), model(x))
        blank.load_state_dict(model.state_dict())
        assert torch.equal(blank(x), model(x))
    finally:
        torch.backends.quantized.engine = before


def test_in_place_or_on_a_copy() -> None:
    model = qfx.QuantWrapper(nn.Linear(4, 2)).eval()
    model.qconfig = qfx.default_qconfig
    prepared = qfx.prepare(model)
    prepared(torch.randn(2, 4))
    copied = qfx.convert(prepared)
    assert type(prepared.module) is nn.Linear
    assert type(copied.module) is quantized.Linear
    assert qfx.convert(prepared, inplace=True) is prepared
    assert type(prepared.module) is quantized.Linear


def test_configurations_may_stay() -> None:
    model, *_ = converted(remove_qconfig=False)
    assert model.qconfig is not None
    model, *_ = converted(mapping={})
    assert type(model.fc) is nn.Linear
    assert not hasattr(model.fc, "qconfig")


def test_reference_classes() -> None:
    model, float_model, _ = converted(is_reference=True)
    assert type(model.fc) is quantized.reference.Linear
    assert type(model.quant) is quantized.Quantize
    x = torch.randn(3, 144)
    torch.testing.assert_close(model.fc(x), float_model.fc(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("make", [nn.LSTM, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_reference_classes_with_several_weights(make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(make(4, 3))
    qfx.propagate_qconfig_(model, {"0": qfx.default_qconfig})
    result = qfx.convert(model, is_reference=True)
    assert type(result[0]) is getattr(quantized.reference, make.__name__)
    x = torch.randn(2, 4)
    rounded, exact = result(x), model(x)
    if isinstance(exact, tuple):
        rounded, exact = rounded[0], exact[0]
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02)


def test_the_model_itself_stays() -> None:
    layer = nn.Linear(4, 2)
    with pytest.warns(UserWarning, match="the model itself is a Linear and stays one.*QuantWrapper") as caught:
        assert type(qfx.quantize_dynamic(layer, {nn.Linear: qfx.default_dynamic_qconfig})) is nn.Linear
    assert len(caught) == 1


def test_an_error_names_the_place() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 2)))
    model.qconfig = qfx.default_qconfig
    qfx.propagate_qconfig_(model)
    with pytest.raises(ModuleTypeError, match="without an observer of its output") as caught:
        qfx.convert(model)
    assert caught.value.__notes__ == ["at 0.0 (Linear)"]


def test_hooks_follow_with_their_options() -> None:
    calls: list[tuple[str, Any]] = []
    model = nn.Sequential(qfx.QuantStub(), nn.Linear(4, 4), qfx.DeQuantStub())
    model[1].register_forward_pre_hook(lambda m, a, k: calls.append(("pre", type(m))), with_kwargs=True)
    model[1].register_forward_hook(lambda m, a, k, o: calls.append(("post", o.is_quantized)), with_kwargs=True)
    model.qconfig = qfx.default_qconfig
    prepared = qfx.prepare(model)
    prepared(torch.randn(2, 4))
    assert calls == [("pre", nn.Linear), ("post", False)]
    calls.clear()
    qfx.convert(prepared)(torch.randn(2, 4))
    assert calls == [("pre", quantized.Linear), ("post", True)]


def test_the_observer_of_an_input_does_not_follow() -> None:
    """Its module has no observer any more, so a hook that stayed would fail at the first call."""
    model = nn.Sequential(nn.Linear(4, 4))
    model.qconfig = qfx.default_dynamic_qat_qconfig
    prepared = qfx.prepare_qat(model.train(), mapping={nn.Linear: qat.dynamic.Linear})
    assert len(prepared[0]._forward_pre_hooks) == 1
    mapping = qfx.get_default_dynamic_quant_module_mappings()
    result = qfx.convert(prepared.eval(), mapping=mapping, remove_qconfig=False)
    assert type(result[0]) is quantized.dynamic.Linear
    assert result(torch.randn(2, 4)).shape == (2, 4)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class ObservedCustom(Custom):
    @classmethod
    def from_float(cls, mod: Custom) -> ObservedCustom:
        made = cls()
        made.conv, made.qconfig = mod.conv, mod.qconfig
        return made


class QuantizedCustom(Custom):
    @classmethod
    def from_observed(cls, mod: Any) -> QuantizedCustom:
        mod.conv.activation_post_process = mod.activation_post_process
        made = cls()
        made.conv = quantized.Conv2d.from_float(mod.conv)
        return made


def test_custom_classes() -> None:
    model = nn.Sequential(qfx.QuantStub(), Custom(), nn.Sequential(Custom()), qfx.DeQuantStub())
    seen: list[Any] = []
    model[1].register_forward_hook(lambda module, args, result: seen.append(type(module)))
    model.qconfig = qfx.default_qconfig
    prepared = qfx.prepare(
        model, prepare_custom_config_dict={"float_to_observed_custom_module_class": {Custom: ObservedCustom}}
    )
    assert type(prepared[1]) is type(prepared[2][0]) is ObservedCustom
    x = torch.randn(2, 1, 3, 3)
    expected = prepared(x)
    result = qfx.convert(
        prepared,
        convert_custom_config_dict={"observed_to_quantized_custom_module_class": {ObservedCustom: QuantizedCustom}},
    )
    assert type(result[1]) is type(result[2][0]) is QuantizedCustom
    torch.testing.assert_close(result(x), expected, rtol=0, atol=0.05)
    assert seen == [ObservedCustom, QuantizedCustom]


def test_default_custom_classes_are_a_copy() -> None:
    qfx.get_default_custom_config_dict()["float_to_observed_custom_module_class"].clear()
    assert nn.LSTM in qfx.get_default_custom_config_dict()["float_to_observed_custom_module_class"]


def test_training_flow() -> None:
    def train(model: nn.Module, data: torch.Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()
        trained.append(copy.deepcopy(model.eval()))

    trained: list[nn.Module] = []
    torch.manual_seed(0)
    model = qfx.fuse_modules_qat(Net().train(), ["conv", "bn", "relu"])
    model.conv[1].momentum = 1.0  # evaluation sees the ranges training saw
    model.qconfig = qfx.get_default_qat_qconfig("x86")
    x = torch.randn(4, 3, 8, 8)
    result = qfx.quantize_qat(model, train, [x])
    assert type(result.conv) is intrinsic.quantized.ConvReLU2d
    assert type(model.conv) is intrinsic.ConvBnReLU2d
    torch.testing.assert_close(result(x), trained[0](x), rtol=0, atol=0.05)


def test_one_dimensional_convolutions_are_trained_too() -> None:
    model = nn.Sequential(qfx.QuantStub(), nn.Conv1d(2, 3, 1), nn.Conv1d(3, 3, 1), nn.ReLU(), qfx.DeQuantStub())
    model = qfx.fuse_modules_qat(model.train(), ["2", "3"])
    model.qconfig = qfx.get_default_qat_qconfig("x86")
    prepared = qfx.prepare_qat(model)
    assert type(prepared[1]) is qat.Conv1d
    assert type(prepared[2]) is intrinsic.qat.ConvReLU1d
    x = torch.randn(2, 2, 5)
    prepared(x)
    result = qfx.convert(prepared.eval())
    assert type(result[2]) is intrinsic.quantized.ConvReLU1d
    torch.testing.assert_close(result(x), prepared(x), rtol=0, atol=0.05)


def test_dynamic_by_name_class_and_dtype() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4)))
    by_name = qfx.quantize_dynamic(model, {"1.0"}, dtype=torch.float16)
    assert type(by_name[0]) is nn.Linear
    assert by_name[1][0]._packed_params.dtype == torch.float16
    by_class = qfx.quantize_dynamic(model, {nn.GRU})
    assert type(by_class[1][1]) is quantized.dynamic.GRU
    assert type(by_class[0]) is nn.Linear
    assert qfx.quantize_dynamic(model, inplace=True) is model
    assert type(model[0]) is quantized.dynamic.Linear


def test_four_bit_tables() -> None:
    model = nn.Sequential(nn.Embedding(20, 12))
    result = qfx.quantize_dynamic(model, {nn.Embedding: qfx.float_qparams_weight_only_qconfig_4bit})
    x = torch.arange(20)
    # the kernel keeps scales and offsets as half floats
    torch.testing.assert_close(result(x), result[0].weight().dequantize(), rtol=0, atol=2e-3)
    torch.testing.assert_close(result(x), model(x), rtol=0, atol=0.25)


def test_converting_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    model = qfx.QuantWrapper(Net()).eval()
    between = torch.random.get_rng_state()
    assert not torch.equal(before, between)
    model.qconfig = qfx.default_qconfig
    qfx.fuse_modules(model, ["module.conv", "module.bn"], inplace=True)
    prepared = qfx.prepare(model)
    prepared(torch.ones(1, 3, 8, 8))
    qfx.convert(prepared)
    assert torch.equal(torch.random.get_rng_state(), between)


@pytest.mark.parametrize("make", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.Linear, nn.LSTM, nn.GRU])
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")
def test_dynamic_models_trace_and_script(make: Any) -> None:
    model = qfx.quantize_dynamic(nn.Sequential(make(4, 3)))
    x = torch.randn(2, 1, 4) if make in (nn.LSTM, nn.GRU) else torch.randn(2, 4)
    expected = model(x)
    for compiled in (torch.jit.trace(model, x), torch.jit.script(model)):
        torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spec", [None, {nn.Linear}])
def test_a_dtype_without_configuration(spec: Any) -> None:
    for builtin in (ValueError, RuntimeError, QfxError):
        with pytest.raises(builtin, match=r"Don't know how to quantize with default settings for torch.int32"):
            qfx.quantize_dynamic(nn.Sequential(nn.Linear(1, 1)), spec, dtype=torch.int32)


def test_swapping_needs_a_configuration_and_a_row() -> None:
    layer = nn.Linear(4, 2)
    mapping = qfx.get_default_dynamic_quant_module_mappings()
    assert qfx.swap_module(layer, mapping, {}) is layer
    layer.qconfig = qfx.default_dynamic_qconfig
    assert qfx.swap_module(layer, {}, {}) is layer
    assert type(qfx.swap_module(layer, mapping, None)) is quantized.dynamic.Linear


def test_ranges_learned_in_training_may_be_kept() -> None:
    model = qfx.QuantWrapper(nn.Linear(4, 2)).train()
    model.qconfig = qfx.get_default_qat_qconfig("qnnpack")
    prepared = qfx.prepare_qat(model)
    prepared(torch.randn(2, 4))
    learned = prepared.module.weight_fake_quant.activation_post_process.max_val.clone()
    with torch.no_grad():
        prepared.module.weight.mul_(10)
    kept = qfx.convert(prepared.eval(), use_precomputed_fake_quant=True)
    anew = qfx.convert(prepared)
    assert kept.module.weight().q_scale() < anew.module.weight().q_scale()
    assert torch.equal(prepared.module.weight_fake_quant.activation_post_process.max_val, learned)


def test_questions_to_the_tables() -> None:
    assert qfx.get_static_quant_module_class(nn.Conv2d) is quantized.Conv2d
    assert qfx.get_static_quant_module_class(nn.Conv2d, is_reference=True) is quantized.reference.Conv2d
    assert qfx.get_static_quant_module_class(Custom, {Custom: QuantizedCustom}) is QuantizedCustom
    assert qfx.get_dynamic_quant_module_class(nn.Linear) is quantized.dynamic.Linear
    assert qfx.get_quantized_operator(nn.functional.hardswish) is torch.ops.quantized.hardswish
    for ask in (qfx.get_static_quant_module_class, qfx.get_dynamic_quant_module_class):
        with pytest.raises(AssertionError, match=r"Custom.* does not have a corresponding quantized module class"):
            ask(Custom)
    with pytest.raises(AssertionError, match="does not have corresponding quantized op; these have: elu"):
        qfx.get_quantized_operator(torch.relu)


@pytest.mark.parametrize("name", [n for n in eager.__all__ if n.endswith("_mappings")])
def test_tables_are_copies(name: str) -> None:
    ask = getattr(qfx, name)
    before = dict(ask())
    ask().clear()
    assert ask() == before


def test_lists_of_classes() -> None:
    listed = qfx.get_default_qconfig_propagation_list()
    assert {nn.Sequential, nn.Linear, nn.LSTM, intrinsic.ConvBn2d} <= listed
    assert quantized.Linear in qfx.get_default_compare_output_module_list()
    assert quantized.Linear not in listed
