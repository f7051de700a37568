"""Modules quantized on their own, and quantized values at the edges of a graph."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import ConfigError
from qfx.nn import quantized

X = torch.randn(4, 1, 5, 5)
MAPPING = qfx.get_default_qconfig_mapping("x86")


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner, self.last = nn.Conv2d(1, 2, 1), Inner(), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.conv(x)))


def _ops(gm: Any) -> list[str]:
    return [getattr(node.target, "__name__", str(node.target)) for node in gm.graph.nodes if node.op.startswith("call")]


def _prepared(model: nn.Module, custom: Any, x: Any = X) -> Any:
    prepared = qfx.prepare_fx(model.eval(), MAPPING, (x,), custom)
    prepared(x)
    return prepared


# -- inputs and outputs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("takes", [[], [0]])
@pytest.mark.parametrize("gives", [[], [0]])
@pytest.mark.parametrize("convert", [qfx.convert_fx, qfx.convert_to_reference_fx])
def test_inputs_and_outputs_may_be_quantized(takes: list[int], gives: list[int], convert: Any) -> None:
    custom = qfx.PrepareCustomConfig().set_input_quantized_indexes(takes).set_output_quantized_indexes(gives)
    model = Inner()
    x = torch.randn(4, 2, 5, 5)
    prepared = _prepared(model, custom, x)
    observers = [m for m in prepared.modules() if isinstance(m, qfx.HistogramObserver)]
    assert len(observers) == 2 - len(takes)
    made = convert(prepared)
    given = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8) if takes else x
    result = made(given)
    assert result.is_quantized is bool(gives)
    assert ((result.dequantize() if gives else result) - model(x)).abs().max() < 0.1
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        again = other(given)
        assert torch.equal(again.int_repr() if gives else again, result.int_repr() if gives else result)


def test_only_some_of_several_outputs_are_quantized() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return self.a(x), self.b(y)

    x = torch.randn(2, 3)
    custom = qfx.PrepareCustomConfig().set_output_quantized_indexes([1])
    prepared = qfx.prepare_fx(Two().eval(), MAPPING, (x, x), custom)
    prepared(x, x)
    a, b = qfx.convert_fx(prepared)(x, x)
    assert not a.is_quantized
    assert b.is_quantized


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        (qfx.PrepareCustomConfig().set_input_quantized_indexes([1]), "names input 1; the model has 1"),
        (qfx.PrepareCustomConfig().set_output_quantized_indexes([2]), "no output number 2 to be quantized; it has 1"),
    ],
)
def test_an_index_of_nothing_is_refused(custom: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        qfx.prepare_fx(Outer().eval(), MAPPING, (X,), custom)


# -- standalone modules --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["name", "class"])
@pytest.mark.parametrize("inside", [qfx.PrepareCustomConfig, None])
@pytest.mark.parametrize("convert", [qfx.convert_fx, qfx.convert_to_reference_fx])
def test_a_standalone_module_is_quantized_by_itself(by: str, inside: Any, convert: Any) -> None:
    quantized_edges = inside is not None
    own = inside().set_input_quantized_indexes([0]).set_output_quantized_indexes([0]) if quantized_edges else None
    custom, examples = qfx.PrepareCustomConfig(), (torch.randn(4, 2, 5, 5),)
    if by == "name":
        custom.set_standalone_module_name("inner", None, examples, own, None)
    else:
        custom.set_standalone_module_class(Inner, MAPPING, examples, own, None)
    model = Outer()
    prepared = _prepared(model, custom)
    assert isinstance(prepared.inner, qfx.ObservedStandaloneGraphModule)
    made = convert(prepared)
    assert isinstance(made.inner, qfx.QuantizedGraphModule)
    assert (made(X) - model(X)).abs().max() < 0.1
    if convert is qfx.convert_fx:
        edges = [name for name in _ops(made) if name in ("quantize_per_tensor", "dequantize")]
        assert edges == ["quantize_per_tensor", "dequantize"] if quantized_edges else len(edges) == 4
        assert type(made.inner.conv) is quantized.Conv2d
    assert torch.equal(copy.deepcopy(made)(X), made(X))
    assert torch.equal(pickle.loads(pickle.dumps(made))(X), made(X))


def test_a_standalone_module_trains() -> None:
    custom = qfx.PrepareCustomConfig().set_standalone_module_name("inner", None, (torch.randn(4, 2, 5, 5),), None, None)
    mapping = qfx.get_default_qat_qconfig_mapping("x86")
    prepared = qfx.prepare_qat_fx(Outer().train(), mapping, (X,), custom)
    prepared(X).sum().backward()
    assert type(prepared.inner.conv) is qfx.nn.qat.Conv2d
    assert type(qfx.convert_fx(prepared.eval()).inner.conv) is quantized.Conv2d


# -- a user's own classes ------------------------------------------------------------------------------------------
class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if float(x.detach().abs().max()) >= 0 else x  # cannot be traced


class Observed(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    @classmethod
    def from_float(cls, module: Custom) -> Observed:
        assert hasattr(module, "qconfig")
        return cls(module.linear)


class Quantized(nn.Module):
    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.is_quantized
        return self.linear(x)

    @classmethod
    def from_observed(cls, observed: Any) -> Quantized:
        linear = observed.linear
        linear.qconfig, linear.activation_post_process = observed.qconfig, observed.activation_post_process
        return cls(quantized.Linear.from_float(linear))


def test_a_users_class_takes_and_gives_quantized_values() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), Custom(), nn.Linear(3, 3)), torch.randn(8, 3)
    custom = qfx.PrepareCustomConfig().set_float_to_observed_mapping(Custom, Observed)
    prepared = _prepared(model, custom, x)
    assert type(prepared.get_submodule("1")) is Observed
    assert not hasattr(model[1], "qconfig")
    table = qfx.ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, Quantized)
    made = qfx.convert_fx(prepared, table)
    assert type(made.get_submodule("1")) is Quantized
    assert [name for name in _ops(made) if name in ("quantize_per_tensor", "dequantize")] == [
        "quantize_per_tensor",
        "dequantize",
    ]
    assert (made(x) - model(x)).abs().max() < 0.1


def test_a_users_class_may_be_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.custom = Custom()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.custom(x) + self.custom(x)

    model, x = Twice(), torch.randn(8, 3)
    custom = qfx.PrepareCustomConfig().set_float_to_observed_mapping(Custom, Observed)
    table = qfx.ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, Quantized)
    made = qfx.convert_fx(_prepared(model, custom, x), table)
    assert _ops(made).count("dequantize") == 1
    assert (made(x) - model(x)).abs().max() < 0.1


def test_results_in_a_dictionary_are_one_output() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"a": self.a(x), "more": [self.b(x)]}

    x = torch.randn(8, 3)
    made = qfx.convert_fx(_prepared(Named(), qfx.PrepareCustomConfig().set_output_quantized_indexes([0]), x))
    found = made(x)
    assert found["a"].is_quantized
    assert found["more"][0].is_quantized
    assert "dequantize" not in _ops(made)


@pytest.mark.parametrize("inner", [True, False])
def test_what_is_inside_a_users_class_has_its_own_configuration(inner: bool) -> None:
    model, x = nn.Sequential(Custom(), nn.Linear(3, 3)), torch.randn(8, 3)
    custom = qfx.PrepareCustomConfig().set_float_to_observed_mapping(Custom, Observed)
    mapping = qfx.get_default_qconfig_mapping("x86")
    if not inner:
        mapping.set_module_name("0.linear", None)
    prepared = qfx.prepare_fx(model.eval(), mapping, (x,), custom)
    prepared(x)
    linear = prepared.get_submodule("0.linear")
    assert (linear.qconfig is mapping.global_qconfig) is inner
    assert not hasattr(model[0].linear, "qconfig")
    assert not hasattr(qfx.convert_fx(prepared).get_submodule("0.linear"), "qconfig")


def test_an_observed_class_without_a_quantized_one_stays_float() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), Custom(), nn.Linear(3, 3)), torch.randn(8, 3)
    prepared = _prepared(model, qfx.PrepareCustomConfig().set_float_to_observed_mapping(Custom, Observed), x)
    made = qfx.convert_fx(prepared)
    assert (made(x) - model(x)).abs().max() < 0.1


def test_a_module_that_cannot_be_traced_stays_whole() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), Custom(), nn.Linear(3, 3)), torch.randn(8, 3)
    prepared = _prepared(model, qfx.PrepareCustomConfig().set_non_traceable_module_classes([Custom]), x)
    made = qfx.convert_fx(prepared)
    assert type(made.get_submodule("1")) is Custom
    assert (made(x) - model(x)).abs().max() < 0.1


def test_the_onednn_target_has_no_quantized_tensors_to_give_or_take() -> None:
    for custom in (
        qfx.PrepareCustomConfig().set_input_quantized_indexes([0]),
        qfx.PrepareCustomConfig().set_output_quantized_indexes([0]),
    ):
        prepared = _prepared(Inner(), custom, torch.randn(4, 2, 5, 5))
        with pytest.raises(ConfigError, match="has plain integers, which do not tell their scale"):
            qfx.convert_fx(prepared, target="onednn")
