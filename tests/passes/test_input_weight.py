"""Input-weight equalization: the same function, columns of inputs and weights with ranges alike, better codes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.api.equalized import equalized
from qfx.errors import ConfigError
from qfx.observers.equalization import (
    EqualizationQConfig,
    InputEqualizationObserver,
    WeightEqualizationObserver,
    calculate_equalization_scale,
    default_equalization_qconfig,
)

MIN_MAX = qfx.QConfig(
    activation=qfx.MinMaxObserver.with_args(dtype=torch.quint8, qscheme=torch.per_tensor_affine),
    weight=qfx.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_affine),
)
MAPPING = qfx.QConfigMapping().set_global(MIN_MAX)
EQUALIZE = qfx.QConfigMapping().set_global(default_equalization_qconfig)  # type: ignore[arg-type]


class Functions(nn.Module):
    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.w1, self.b1 = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(5))
        self.w2, self.b2 = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.w1, self.b1)
        return F.linear(F.relu(x) if self.relu else x, self.w2, self.b2)


class Keywords(Functions):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(bias=self.b1, weight=self.w1, input=x)
        return F.linear(input=x, weight=self.w2, bias=self.b2)


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.c(y + self.b(y))


MODELS: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5)), (16, 4), 1),
    "three linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2)), (16, 4), 1),
    "relu between": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (16, 4), 1),
    "sigmoid between": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3)), (16, 4), 2),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv1d(4, 2, 3, bias=False)), (2, 3, 9), 1),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), (2, 3, 8, 8), 1),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(3, 4, 2)), (2, 3, 4, 4, 4), 1),
    "functions": (lambda: Functions(relu=False), (16, 4), 1),
    "functions by keyword": (lambda: Keywords(relu=False), (16, 4), 1),
    "functions with relu": (lambda: Functions(relu=True), (16, 4), 1),
}


def columns(shape: tuple[int, ...]) -> torch.Tensor:
    """An input whose columns differ in range by a factor of forty."""
    return torch.randn(shape) * torch.linspace(0.1, 4, shape[1]).reshape([1, -1] + [1] * (len(shape) - 2))


def prepared(model: nn.Module, x: torch.Tensor, config: Any = EQUALIZE, mapping: Any = MAPPING) -> Any:
    made = qfx.prepare_fx(model.eval(), mapping, (x,), _equalization_config=config)
    made(x)
    return made


def watchers(gm: nn.Module, kind: Any = InputEqualizationObserver) -> int:
    return sum(isinstance(module, kind) for module in gm.modules())


@pytest.mark.parametrize("name", MODELS)
def test_the_equalized_model_computes_the_same(name: str) -> None:
    build, shape, products = MODELS[name]
    model, x = build().eval(), columns(shape)
    made = equalized(prepared(model, x))
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
    assert watchers(made) == 0
    assert sum(node.target is torch.mul for node in made.graph.nodes) == products
    scales = [str(node.target) for node in made.graph.nodes if "equalization_scale" in str(node.target)]
    assert len(scales) == products


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
def test_the_converted_model_is_near(name: str, target: str) -> None:
    build, shape, _ = MODELS[name]
    model, x = build().eval(), columns(shape)
    int8 = qfx.convert_fx(prepared(model, x), target=target)
    expected = model(x).detach()
    error = (int8(x) - expected).pow(2).mean() / expected.pow(2).mean()
    assert float(error) < 10**-3
    assert watchers(int8) == 0


def test_ranges_that_differ_by_column_lose_less() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16)).eval()
    spread = torch.logspace(-2, 1, 16)
    with torch.no_grad():
        model[0].weight.div_(spread)  # every column matters alike
    x = torch.randn(64, 16) * spread
    plain, better = (qfx.convert_fx(prepared(model, x, config)) for config in (None, EQUALIZE))
    expected = model(x).detach()
    errors = [float((gm(x) - expected).pow(2).mean()) for gm in (plain, better)]
    assert errors[1] < errors[0] / 10


def test_factors_are_square_roots_of_ranges() -> None:
    x, weight = columns((16, 4)), torch.randn(5, 4)
    of_input, of_weight = InputEqualizationObserver(), WeightEqualizationObserver()
    assert of_input(x) is x
    assert of_weight(weight) is weight
    factors = calculate_equalization_scale(of_input, of_weight)
    spread = [each.amax(0) - each.amin(0) for each in (weight, x)]
    torch.testing.assert_close(factors, (spread[0] / spread[1]).sqrt())
    of_input.set_equalization_scale(factors)
    assert of_input.equalization_scale.shape == (1, 4)
    low, high = of_input.calculate_scaled_minmax()
    torch.testing.assert_close(low, (x * factors).min())
    torch.testing.assert_close(high, (x * factors).max())


def test_a_column_without_a_range_keeps_its_scale() -> None:
    x = columns((16, 4))
    x[:, 2] = 1.5
    of_input, of_weight = InputEqualizationObserver(), WeightEqualizationObserver()
    of_input(x)
    of_weight(torch.randn(5, 4))
    assert calculate_equalization_scale(of_input, of_weight)[2] == 1


def test_weights_of_functions_are_watched_in_the_graph() -> None:
    made = prepared(Functions(relu=False), columns((16, 4)))
    assert (watchers(made), watchers(made, WeightEqualizationObserver)) == (2, 2)


def test_histograms_become_ranges() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), columns((64, 4))
    made = prepared(model, x, mapping=qfx.get_default_qconfig_mapping("x86"))
    int8 = qfx.convert_fx(made, strict=True)
    assert float((int8(x) - model(x)).detach().pow(2).mean() / model(x).detach().pow(2).mean()) < 10**-3


def test_the_users_model_and_the_prepared_one_stay_as_they_are() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), columns((16, 4))
    before = copy.deepcopy(model.state_dict())
    made = prepared(model, x)
    state, out = copy.deepcopy(made.state_dict()), made(x)
    first, second = qfx.convert_fx(made), qfx.convert_fx(made)
    assert torch.equal(first(x), second(x))
    assert torch.equal(made(x), out)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    kept = {name: value for name, value in made.state_dict().items() if isinstance(value, torch.Tensor)}
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(qfx.convert_fx(again)(x), first(x))


def test_only_what_the_mapping_names_is_equalized() -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), columns((16, 4))
    chosen = qfx.QConfigMapping().set_module_name("2", default_equalization_qconfig)  # type: ignore[arg-type]
    made = prepared(model, x, chosen)
    assert watchers(made) == 1
    assert sum(node.target is torch.mul for node in equalized(made).graph.nodes) == 1
    assert float((qfx.convert_fx(made)(x) - model(x)).detach().abs().max()) < 0.1


def test_an_input_others_read_is_left_alone_with_a_warning() -> None:
    model, x = Added().eval(), columns((16, 4))
    with pytest.warns(UserWarning, match=r"1 layers cannot be equalized: b \(.*others read its input or weight"):
        made = prepared(model, x)
    assert watchers(made) == 2
    torch.testing.assert_close(equalized(made)(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_grouped_convolution_is_left_alone_with_a_warning() -> None:
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)).eval(), columns((2, 4, 8, 8))
    with pytest.warns(UserWarning, match=r"cannot be equalized: _0 \(.*its groups share no column of the weight"):
        made = prepared(model, x)
    assert watchers(made) == 0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="received observer instance, please pass observer class instead"):
        EqualizationQConfig(InputEqualizationObserver(), WeightEqualizationObserver)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Input qscheme must be per-tensor"):
        InputEqualizationObserver(qscheme=torch.per_channel_affine)
    with pytest.raises(ValueError, match="inputs of 2 to 5 dimensions; got 1"):
        InputEqualizationObserver()(torch.randn(3))
    with pytest.raises(ValueError, match="weights of 2 to 5 dimensions; got 1"):
        WeightEqualizationObserver()(torch.randn(3))
    with pytest.raises(ConfigError, match="give it in _equalization_config"):
        qfx.prepare_fx(nn.Linear(2, 2).eval(), EQUALIZE, (torch.randn(1, 2),))
    with pytest.raises(ConfigError, match="equalized takes what prepare_fx returned, got Linear"):
        equalized(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_observers_that_saw_nothing_say_so() -> None:
    with pytest.warns(UserWarning, match="saw nothing, so its layer stays as it is"):
        factors = calculate_equalization_scale(InputEqualizationObserver(), WeightEqualizationObserver())
    assert factors == torch.tensor(1)
    with pytest.warns(UserWarning, match="Must call calculate_equalization_scale"):
        assert InputEqualizationObserver().calculate_scaled_minmax() == (None, None)


@pytest.mark.filterwarnings("ignore:.*never ran")
@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(4, 3, 1)])
def test_a_model_that_saw_nothing_has_the_same_graph_and_its_own_numbers(layer: nn.Module) -> None:
    x = torch.randn(2, 4) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 5, 5)
    prepared = qfx.prepare_fx(nn.Sequential(layer).eval(), MAPPING, (x,), _equalization_config=EQUALIZE)
    with pytest.warns(UserWarning, match="saw nothing, so its layer stays as it is"):
        made = qfx.convert_to_reference_fx(copy.deepcopy(prepared))
    (product,) = made.graph.find_nodes(op="call_function", target=torch.mul)
    assert torch.equal(made.get_buffer(product.args[1].target).flatten(), torch.ones(4))
    prepared(x)
    seen = qfx.convert_to_reference_fx(prepared)
    assert [node.op for node in made.graph.nodes] == [node.op for node in seen.graph.nodes]


class Beside(nn.Module):
    """A layer, and a float addition that reads the same value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(x), torch.add(x, 5)


def test_others_may_read_the_value_as_it_is() -> None:
    torch.manual_seed(0)
    model, x = Beside().eval(), torch.randn(64, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0])
    with torch.no_grad():
        model.fc.weight.mul_(torch.tensor([10.0, 1.0, 0.1, 0.01]))
    mapping = qfx.QConfigMapping().set_object_type(nn.Linear, MIN_MAX)

    def error(factors: Any) -> float:
        prepared = qfx.prepare_fx(model, mapping, (x,), _equalization_config=factors)
        prepared(x)
        made = qfx.convert_fx(prepared)
        found, added = made(x)
        assert torch.equal(added, x + 5)
        assert len(made.graph.find_nodes(op="call_function", target=torch.mul)) == (factors is not None)
        return float((found - model.fc(x)).detach().square().mean())

    assert error(EQUALIZE) < error(None) / 4
