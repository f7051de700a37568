"""Input-weight equalization: the original's factors, weights and biases, bit for bit, and its order of nodes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.observers.equalization import default_equalization_qconfig

ao = pytest.importorskip("torch.ao.quantization")
fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
theirs = pytest.importorskip("torch.ao.quantization.fx._equalize")

MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5)), (8, 4)),
    "three linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2)), (8, 4)),
    "relu between": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (8, 4)),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv1d(4, 2, 3)), (2, 3, 8)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), (2, 3, 8, 8)),
}


def converted(library: Any, functions: Any, config: Any, model: nn.Module, x: torch.Tensor) -> tuple[Any, Any]:
    observer, mapping = library.MinMaxObserver.with_args, library.QConfigMapping
    qconfig = library.QConfig(
        activation=observer(dtype=torch.quint8, qscheme=torch.per_tensor_affine),
        weight=observer(dtype=torch.qint8, qscheme=torch.per_tensor_affine),
    )
    # The original scales the weights of the model it is given
    arguments = copy.deepcopy(model), mapping().set_global(qconfig), (x,)
    made = []
    for convert in (functions.convert_to_reference_fx, functions.convert_fx):
        prepared = functions.prepare_fx(*arguments, _equalization_config=mapping().set_global(config))
        prepared(x)
        made.append(convert(prepared))
        arguments = copy.deepcopy(model), *arguments[1:]
    return made[0], made[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_factors_weights_and_nodes_are_the_same(name: str) -> None:
    torch.backends.quantized.engine = "fbgemm"
    build, shape = MODELS[name]
    model = build().eval()
    x = torch.randn(shape) * torch.linspace(0.2, 4, shape[1]).reshape([1, -1] + [1] * (len(shape) - 2))
    one, their_int8 = converted(ao, fx, theirs.default_equalization_qconfig, model, x)
    other, our_int8 = converted(qfx, qfx, default_equalization_qconfig, model, x)
    assert torch.equal(one.input_1_equalization_scale0, other.input_1_equalization_scale0)
    for path, _ in model.named_children():
        if not hasattr(one, path):
            continue
        pair = [
            module[0] if isinstance(module, nn.Sequential) else module
            for module in (getattr(one, path), getattr(other, path))
        ]
        for part in ("weight", "bias", "weight_scale", "weight_zero_point"):
            if hasattr(pair[0], part):
                assert torch.equal(getattr(pair[0], part), getattr(pair[1], part)), (path, part)
    names = [
        [getattr(node.target, "__name__", node.target) for node in gm.graph.nodes if node.op.startswith("call")]
        for gm in (their_int8, our_int8)
    ]
    assert names[0] == names[1]
    expected = model(x)
    errors = [float((gm(x) - expected).detach().pow(2).mean()) for gm in (their_int8, our_int8)]
    # The original keeps the range that values between layers had before they were scaled
    assert errors[1] == errors[0] if name == "linear" else errors[1] < errors[0]
