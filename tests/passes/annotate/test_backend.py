"""Patterns of a user's BackendConfig in the nested format, and where functions it knows have their weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import qfx
from qfx import BackendConfig, BackendPatternConfig, DTypeConfig, MatchAllNode, ops
from qfx.errors import ConfigError
from qfx.passes.annotate.backend import compiled, default_backend
from qfx.spellings import CallSpelling, Signature, register

FULL = DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float)
PLAIN = DTypeConfig(torch.quint8, torch.quint8)
MAPPING = qfx.QConfigMapping().set_global(qfx.default_qconfig)


@fx.wrap
def project(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.t() + bias


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return project(self.bias, x, self.weight)


def observers(prepared: fx.GraphModule) -> dict[str, str]:
    """What each observer watches, and its class."""
    return {
        str(node.args[0]): type(prepared.get_submodule(str(node.target))).__name__
        for node in prepared.graph.nodes
        if node.op == "call_module" and str(node.target).startswith("activation_post_process")
    }


def test_a_function_with_its_weight_where_the_backend_says() -> None:
    config = BackendPatternConfig(project).add_dtype_config(FULL)._set_input_type_to_index({"bias": 0, "weight": 2})
    backend = BackendConfig("mine").set_backend_pattern_config(config)
    model, x = Projection().eval(), torch.randn(8, 3)
    weight = qfx.default_per_channel_weight_observer
    mapping = qfx.QConfigMapping().set_global(qfx.QConfig(qfx.default_observer, weight))
    prepared = qfx.prepare_fx(model, mapping, (x,), backend_config=backend)
    assert observers(prepared) == {
        "x": "MinMaxObserver",
        "weight": "PerChannelMinMaxObserver",
        "project": "MinMaxObserver",
    }
    prepared(x)
    reference = qfx.convert_to_reference_fx(prepared)
    called = [node.target for node in reference.graph.nodes if node.op == "call_function"]
    assert called.count(torch.quantize_per_tensor) == 2
    assert called.count(torch.quantize_per_channel) == 1
    torch.testing.assert_close(reference(x), model(x), atol=0.1, rtol=0.05)


def test_without_that_every_tensor_is_an_activation() -> None:
    backend = BackendConfig().set_backend_pattern_config(BackendPatternConfig(project).add_dtype_config(PLAIN))
    prepared = qfx.prepare_fx(Projection().eval(), MAPPING, (torch.randn(8, 3),), backend_config=backend)
    assert set(observers(prepared)) == {"bias", "x", "weight", "project"}


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.doubled = Doubled()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.add(torch.sin(y), self.doubled(x))


def prepared(config: BackendPatternConfig) -> Any:
    custom = qfx.PrepareCustomConfig().set_non_traceable_module_classes([Doubled])
    backend = BackendConfig().set_backend_pattern_config(config.add_dtype_config(PLAIN))
    example = (torch.randn(2), torch.randn(2))
    return qfx.prepare_fx(Net().eval(), MAPPING, example, custom, backend_config=backend)


@pytest.mark.parametrize("getter", [None, lambda matched: matched[2]])
def test_a_nested_pattern(getter: Any) -> None:
    config = BackendPatternConfig()._set_pattern_complex_format((torch.add, MatchAllNode, Doubled))
    if getter is not None:
        config._set_root_node_getter(getter)
    made = prepared(config)
    (instance,) = made.plan["instances"].values()
    assert instance["nodes"] == ("doubled", "add")
    assert observers(made) == {"x": "MinMaxObserver", "add": "MinMaxObserver"}  # not what matched anything
    assert instance["pattern"].startswith("anything > ")


def test_a_root_that_is_none() -> None:
    config = BackendPatternConfig()._set_pattern_complex_format((torch.add, Doubled, MatchAllNode))
    with pytest.raises(
        ConfigError, match=r"the root of pattern .* is sin, no operator of it; give the config a root_no"
    ):
        prepared(config)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (MatchAllNode, "a pattern ends with an operator, not with MatchAllNode"),
        ((torch.add, 3, Doubled), "a pattern is made of module classes, functions and names of tensor methods, got 3"),
    ],
)
def test_impossible_patterns(pattern: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        prepared(BackendPatternConfig()._set_pattern_complex_format(pattern))


def spelled_late(x: Tensor) -> Tensor:
    return torch.relu(x)


def test_the_default_backend_is_compiled_once_and_again_after_a_spelling_was_registered() -> None:
    before = compiled(default_backend())
    assert compiled(default_backend()) is before
    register(CallSpelling(spelled_late, ops.relu, Signature.parse("x"), {}))
    assert compiled(default_backend()) is not before


def test_the_default_backend_is_not_the_one_users_get_and_may_change() -> None:
    theirs = qfx.get_default_backend_config()
    theirs.set_backend_pattern_config(BackendPatternConfig(torch.nn.Bilinear))
    assert len(default_backend().configs) == len(theirs.configs) - 1
