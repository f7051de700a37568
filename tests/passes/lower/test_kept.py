"""Converted models survive copies, pickles and state dicts, on every target, and hold nothing they should not."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import qfx
from qfx.errors import RuleError

torch.manual_seed(0)  # the input is made once, here
X2 = torch.randn(2, 4, 8, 8)


class Net(nn.Module):
    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, kernel), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.a(F.conv2d(x, self.a.weight))).mean([2, 3])
        return F.linear(x, self.b.weight, self.b.bias) * 2


@pytest.fixture(params=["native", "onednn", "reference"])
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def converted(model: nn.Module, target: str, x: torch.Tensor = X2) -> qfx.QuantizedGraphModule:
    prepared = qfx.prepare_fx(model.eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    return qfx.convert_fx(prepared, target=target)


def saved(gm: Any) -> Any:
    file = io.BytesIO()
    torch.save(gm, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda gm: pickle.loads(pickle.dumps(gm)), saved])
def test_copies_compute_the_same(way: Any, target: str) -> None:
    lowered = converted(Net(), target)
    expected = lowered(X2)
    for engine in ("fbgemm", "onednn"):
        torch.backends.quantized.engine = engine
        other = way(lowered)
        assert isinstance(other, qfx.QuantizedGraphModule)
        assert torch.equal(other(X2), expected)
        assert other.plan == lowered.plan


def test_state_dicts_load_strictly(target: str) -> None:
    model = Net()
    first = converted(model, target)
    other = copy.deepcopy(model)
    other.a.weight.data.mul_(0.5)
    second = converted(other, target, X2 * 3)
    state = copy.copy(first.state_dict())
    assert not torch.equal(first(X2), second(X2))
    second.load_state_dict(state, strict=True)
    assert torch.equal(first(X2), second(X2))
    if target != "reference":
        assert "_packed_weight_1" in state  # what was loaded is not changed
        del state["_packed_weight_1"]
        with pytest.raises(RuntimeError, match=r"Missing key.*_packed_weight_1"):
            second.load_state_dict(state, strict=True)


OPS: dict[str, nn.Module] = {
    "ELU": nn.ELU(0.5),
    "LeakyReLU": nn.LeakyReLU(),
    "Hardswish": nn.Hardswish(),
    "PReLU": nn.PReLU(4),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "ReLU6": nn.ReLU6(),
    "Hardtanh": nn.Hardtanh(-0.4, 0.6),
    "Softmax": nn.Softmax(1),
    "GELU": nn.GELU(),
    "InstanceNorm2d": nn.InstanceNorm2d(4, affine=True),
    "LayerNorm": nn.LayerNorm(8),
    "AvgPool2d": nn.AvgPool2d(2),
    "MaxPool2d": nn.MaxPool2d(2),
    "Upsample": nn.Upsample(scale_factor=2),
}


@pytest.mark.parametrize("name", OPS)
def test_state_dicts_hold_the_parameters_of_every_op(name: str, target: str) -> None:
    made = []
    for factor in (1.0, 3.0):
        model = nn.Sequential(nn.Conv2d(4, 4, 1), copy.deepcopy(OPS[name]), nn.Conv2d(4, 2, 1))
        for parameter in model[1].parameters():
            parameter.data.mul_(factor)
        made.append(converted(model, target, X2 * factor))
    first, second = made
    assert not torch.equal(first(X2), second(X2))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(X2), second(X2))


@pytest.mark.parametrize("weights_only", [True, False])
def test_the_file_of_a_state_dict_needs_one_filter_at_most(target: str, weights_only: bool) -> None:
    """Quantized tensors make torch's loader warn of its own code, once a process (docs/differences.md)."""
    first, second, file = converted(Net(), target), converted(Net(), target, X2 * 3), io.BytesIO()
    torch.save(first.state_dict(), file)

    def load() -> dict[str, Any]:
        torch.storage._reset_warn_typed_storage_removal()
        file.seek(0)
        return torch.load(file, weights_only=weights_only)  # type: ignore[no-any-return]

    if target == "native":
        with pytest.raises(UserWarning, match="TypedStorage is deprecated"):
            load()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
            state = load()
    else:
        state = load()
    second.load_state_dict(state, strict=True)
    assert torch.equal(first(X2), second(X2))


@pytest.mark.parametrize("name", ["native", "onednn"])
def test_a_state_dict_of_another_model_is_refused(name: str) -> None:
    first, second = converted(Net(), name), converted(Net(3), name)
    with pytest.raises(Exception, match=r"weight of shape \(4, 4, 3, 3\), this layer \(4, 4, 1, 1\)"):
        first.load_state_dict(second.state_dict())


@pytest.mark.parametrize("name", ["native", "onednn"])
def test_no_float_weight_stays_beside_its_codes(name: str) -> None:
    lowered = converted(Net(), name)
    fetched = {str(n.target) for n in lowered.graph.nodes if n.op == "get_attr"}
    assert [name for name, _ in lowered.named_parameters()] == []
    assert {name for name, _ in lowered.named_buffers()} == fetched - set(lowered.rebuilt)


MODULES = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*instance-level annotations:UserWarning")  # of torch's own GraphModule
@pytest.mark.parametrize("name", ["native", "reference"])
@pytest.mark.parametrize("model", [Net(), MODULES])
def test_graphs_script(name: str, model: nn.Module) -> None:
    int8 = converted(model, name)
    scripted = torch.jit.script(int8)
    assert torch.equal(scripted(X2), int8(X2))


class NoQuantizedTensors(TorchDispatchMode):
    """Fails where an operator returns a tensor of one of torch's quantized dtypes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            assert not (isinstance(each, torch.Tensor) and each.is_quantized), func
        return found


def test_onednn_makes_no_tensor_of_a_deprecated_dtype() -> None:
    prepared = qfx.prepare_fx(Net().eval(), qfx.get_default_qconfig_mapping("x86"), (X2,))
    prepared(X2)
    with pytest.raises(RuleError, match="_make_per_tensor_quantized_tensor"), NoQuantizedTensors():
        qfx.convert_fx(prepared, target="native")(X2)
    with NoQuantizedTensors():
        int8 = qfx.convert_fx(prepared, target="onednn", strict=True)
        assert torch.equal(saved(int8)(X2), int8(X2))
        assert str(qfx.explain(int8))
        int8.load_state_dict(int8.state_dict())
