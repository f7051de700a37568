from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import qfx
from qfx.errors import DowngradeError
from qfx.graph.hooks import hook_names, hooks_of, share_hooks

X = torch.randn(4, 8)
MAPPING = qfx.get_default_qconfig_mapping("x86")


def ten_times(*args: Any) -> Any:
    """A hook that changes what a module computes; importable, so that a module with it can be pickled."""
    return args[-1] * 10 if len(args) == 3 else (args[-1][0] * 10,)


class Keyword:
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, {name: value * 10 for name, value in kwargs.items()}


def test_hooks_are_found_named_and_shared() -> None:
    module, other = nn.Linear(8, 8), nn.Linear(8, 8)
    assert hooks_of(module) == []
    module.register_forward_hook(ten_times)
    module.register_forward_pre_hook(Keyword(), with_kwargs=True)
    assert hook_names(module) == "Keyword, ten_times"
    share_hooks(module, other)
    assert hooks_of(other) == hooks_of(module)
    assert torch.equal(other(input=X), nn.functional.linear(X * 10, other.weight, other.bias) * 10)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8)), nn.Dropout()
    ).eval()


PLACES: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "layer": lambda model: model[0],
    "norm": lambda model: model[1],
    "relu": lambda model: model[2],
    "dropout": lambda model: model[4],
    "inside": lambda model: model[3],
    "model": lambda model: model,
}
KINDS: dict[str, Callable[[nn.Module], Any]] = {
    "after": lambda module: module.register_forward_hook(ten_times),
    "before": lambda module: module.register_forward_pre_hook(ten_times),
}


def quantized(model: nn.Module, target: str = "native", **how: Any) -> qfx.QuantizedGraphModule:
    prepared = qfx.prepare_fx(model, MAPPING, (X,), **how)
    prepared(X)
    return qfx.convert_fx(copy.deepcopy(prepared), target=target)


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_hook_computes_is_not_lost(place: str, kind: str, target: str) -> None:
    model = network()
    KINDS[kind](PLACES[place](model))
    expected = model(X).detach()
    torch.testing.assert_close(qfx.fuse_fx(model)(X).detach(), expected)
    gm = quantized(model, target)
    for each in (gm, copy.deepcopy(gm), pickle.loads(pickle.dumps(gm))):
        # 7-bit rounding moves it by some percent; a lost hook, by a factor of ten
        torch.testing.assert_close(each(X).detach(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("place", ["layer", "norm", "relu", "dropout"])
def test_a_layer_with_hooks_stays_float_and_says_so(place: str) -> None:
    model = network()
    KINDS["after"](PLACES[place](model))
    entry = qfx.explain(quantized(model))[{"layer": "_0", "norm": "_1", "relu": "_2", "dropout": "_4"}[place]]
    assert entry.status == "float"
    assert entry.reasons[0].startswith("it has forward hooks (ten_times), which no kernel calls")
    with pytest.raises(DowngradeError, match=r"it has forward hooks \(ten_times\)"):
        quantized(model, strict=True)


@pytest.mark.parametrize("place", ["inside", "model"])
def test_hooks_of_what_is_no_layer_cost_nothing(place: str) -> None:
    model = network()
    KINDS["after"](PLACES[place](model))
    assert qfx.summary(quantized(model, strict=True)).coverage_macs == 1


def test_hooks_of_a_graph_module_stay() -> None:
    gm = torch.fx.symbolic_trace(network())
    gm.register_forward_hook(ten_times)
    expected = gm(X).detach()
    torch.testing.assert_close(quantized(gm)(X), expected, rtol=0, atol=0.02 * float(expected.abs().max()))


# -- weights computed by hooks, or by parametrizations -------------------------------------------------------------
def old(function: Callable[..., nn.Module], *args: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layer = nn.Linear(8, 8)
        with pytest.warns(FutureWarning, match="deprecated"):
            function(layer, *args)
        return layer

    return make


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)


ALTERED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight norm by a hook": (old(torch.nn.utils.weight_norm), r"it has forward hooks \(WeightNorm\)"),
    "spectral norm by a hook": (lambda: torch.nn.utils.spectral_norm(nn.Linear(8, 8)), r"hooks \(SpectralNorm\)"),
    "pruned": (pruned, r"it has forward hooks \(L1Unstructured\).*prune.remove"),
}


@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("name", ALTERED)
def test_a_computed_weight_is_computed_on(name: str, ran: bool, target: str) -> None:
    make, said = ALTERED[name]
    model = nn.Sequential(make(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)).eval()
    model[1].running_mean.normal_()
    if ran:  # the weight is the result of a computation then, which copy.deepcopy refuses
        model(X)
    expected = model(X).detach()
    gm = quantized(model, target)
    torch.testing.assert_close(gm(X).detach(), expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    assert qfx.explain(gm)["_0"].status == "float"
    with pytest.raises(DowngradeError, match=said):
        quantized(model, strict=True)


def test_a_weight_made_permanent_is_quantized() -> None:
    model = nn.Sequential(pruned()).eval()
    prune.remove(model[0], "weight")
    assert qfx.summary(quantized(model, strict=True)).coverage_macs == 1


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x


def parametrized() -> nn.Module:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    return parametrize.register_parametrization(layer, "bias", Halved())


@pytest.mark.parametrize("make", [parametrized, lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))])
@pytest.mark.parametrize("target", ["native", "onednn"])
def test_parametrized_layers_are_quantized_as_they_are(make: Callable[[], nn.Module], target: str) -> None:
    layer, again = make(), make()
    model = nn.Sequential(layer, nn.BatchNorm1d(8), nn.ReLU(), again, again, nn.Linear(8, 8)).eval()
    model[1].running_mean.normal_()
    expected, keys = model(X).detach(), list(model.state_dict())
    gm = quantized(model, target, strict=True)
    torch.testing.assert_close(gm(X).detach(), expected, rtol=0, atol=0.03 * float(expected.abs().max()))
    assert qfx.summary(gm).coverage_macs == 1.0
    assert list(model.state_dict()) == keys  # the user's model goes on with what it had
    parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(gm(X).detach(), expected, rtol=0, atol=0.03 * float(expected.abs().max()))


def test_a_parametrization_that_trains_or_is_left_float_stays() -> None:
    model = nn.Sequential(parametrized(), nn.ReLU())
    mapping = qfx.get_default_qconfig_mapping("x86").set_object_type(nn.Linear, None)
    prepared = qfx.prepare_fx(model.eval(), mapping, (X,))
    assert any("parametrizations" in key for key in prepared.state_dict())
    expected = prepared(X)
    parametrize.remove_parametrizations(model[0], "weight")  # torch takes it off the class, which a copy would share
    assert torch.equal(prepared(X), expected)
    trained = nn.Sequential(parametrized()).train()
    with pytest.raises(DowngradeError, match="its weight, bias is computed by a parametrization"):
        qfx.prepare_qat_fx(trained, qfx.get_default_qat_qconfig_mapping("x86"), (X,), strict=True)
