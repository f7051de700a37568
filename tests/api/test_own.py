"""A converted model shares no memory with the prepared one, and takes no name the model uses itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import qfx
from qfx.nn.quantized import reference
from qfx.passes.pipeline import Context, FunctionPass

X = torch.rand(2, 4, 8, 8)
MAPPING = qfx.get_default_qconfig_mapping("x86")


class Tied(nn.Module):
    """Two linear layers with one weight, and a convolution the onednn target has no kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.a, self.b = nn.Linear(9, 9), nn.Linear(9, 9)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(self.up(x)))
        return y


def prepared(model: nn.Module, mapping: Any, *example: Any) -> GraphModule:
    gm = qfx.prepare_fx(model.eval(), mapping, example)
    gm(*example)
    return gm


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def memory(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors(dict(module.state_dict())) if tensor.numel()}


WEIGHT_ONLY = qfx.QConfigMapping().set_object_type(nn.Embedding, qfx.float_qparams_weight_only_qconfig)
CASES = {
    "static": (Tied(), MAPPING, X),
    "sequential": (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 3)), MAPPING, X),
    "dynamic": (
        nn.Sequential(nn.Linear(8, 4), nn.ReLU()),
        qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig),
        X,
    ),
    "half": (nn.Sequential(nn.Linear(8, 4)), qfx.QConfigMapping().set_global(qfx.float16_dynamic_qconfig), X),
    "embedding": (nn.Sequential(nn.Embedding(7, 16)), WEIGHT_ONLY, torch.tensor([1, 2])),
    "lstm": (
        nn.Sequential(nn.LSTM(8, 4)),
        qfx.QConfigMapping().set_object_type(nn.LSTM, qfx.default_dynamic_qconfig),
        X[0],
    ),
}


# Of the targets, onednn has no kernels that quantize in the call.
PAIRS = [(case, target) for case in CASES for target in ("reference", "native")] + [
    ("static", "onednn"),
    ("sequential", "onednn"),
]


@pytest.mark.parametrize(("case", "target"), PAIRS)
def test_no_memory_is_shared(case: str, target: str) -> None:
    model, mapping, x = CASES[case]
    before = prepared(model, mapping, x)
    after = qfx.convert_fx(before, target=target)
    assert memory(after)
    assert not memory(before) & memory(after)


def test_a_layer_without_a_kernel_owns_its_weight_after_lowering() -> None:
    before = prepared(Tied(), MAPPING, X)
    after = qfx.convert_fx(before, target="onednn")
    up: Any = after.up
    assert isinstance(up, reference.ConvTranspose2d)  # else this tests nothing
    expected = after(X)
    with torch.no_grad():
        before.up.weight.zero_()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(after(X), expected, rtol=0, atol=0)


def test_tied_weights_stay_tied_in_the_reference_graph() -> None:
    gm: Any = qfx.convert_to_reference_fx(prepared(Tied(), MAPPING, X))  # type: ignore[arg-type]
    assert gm.a.weight is gm.b.weight


@pytest.mark.parametrize("stage", ["convert", "lower"])
def test_a_pass_of_the_user_sees_parameters_of_its_own_model(stage: str) -> None:
    before = prepared(Tied(), MAPPING, X)
    mine = {id(parameter) for parameter in before.parameters()}
    seen: list[bool] = []

    def look(gm: GraphModule, context: Context) -> bool:
        seen.extend(id(parameter) in mine for parameter in gm.parameters())
        return False

    qfx.convert_fx(before, target="onednn", passes={stage: [FunctionPass("look", look)]})
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("target", ["reference", "native", "onednn"])
def test_names_a_model_uses_itself_are_left_to_it(target: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation_post_process_1 = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.activation_post_process_1_scale_0 = nn.Parameter(torch.full((1,), 3.0))
            self.b_zero_point_0 = nn.Parameter(torch.full((1,), 5.0))
            self.add_scale_1 = 0.25

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.b(self.activation_post_process_1(x)) * self.activation_post_process_1_scale_0
            return x + self.b_zero_point_0 + self.add_scale_1

    model, x = Named().eval(), torch.randn(16, 4)
    expected = model(x)
    prepared = qfx.prepare_fx(model, MAPPING, (x,))
    torch.testing.assert_close(prepared(x), expected, rtol=0, atol=0)
    made = qfx.convert_fx(prepared, target=target)
    torch.testing.assert_close(made(x), expected, rtol=0.05, atol=0.1)  # 7 bits; a parameter overwritten is units away
