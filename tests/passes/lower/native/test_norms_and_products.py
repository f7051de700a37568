"""Norms and products of the native target: as functions, what a kernel does not compute, what is reported as float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, function: Callable[..., Any], modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def net(function: Callable[..., Any], **modules: nn.Module) -> Net:
    return Net(function, modules).eval()


def both(model: nn.Module, x: torch.Tensor) -> tuple[qfx.QuantizedGraphModule, qfx.QuantizedGraphModule]:
    """The reference graph and the lowered one."""
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    return qfx.convert_to_reference_fx(prepared), qfx.convert_fx(prepared)


def check(model: nn.Module, kernel: str) -> None:
    """One integer kernel, at most two codes from the reference graph: norms are float32 inside, in another order."""
    reference, lowered = both(model, X)
    assert kernel in lowered.plan["kernels"].values()
    step = max(float(v) for k, v in reference.named_buffers() if "_scale_" in k and v.dim() == 0)
    torch.testing.assert_close(lowered(X), reference(X), rtol=0, atol=2.001 * step)


def test_a_batch_norm_as_a_function() -> None:
    def normalized(m: Any, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, m.mean, m.var, m.gamma, m.beta, eps=1e-3)

    model = net(normalized)
    model.gamma, model.beta = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.randn(4))
    model.register_buffer("mean", torch.randn(4) / 2)
    model.register_buffer("var", torch.rand(4) + 0.5)
    check(model, "quantized.batch_norm")


def test_an_instance_norm_as_a_function() -> None:
    model = net(lambda m, x: F.instance_norm(x, weight=m.gamma, bias=m.beta, eps=1e-3))
    model.gamma, model.beta = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.randn(4))
    check(model, "quantized.instance_norm")


@pytest.mark.parametrize(
    ("norm", "x", "why"),
    [
        (nn.InstanceNorm2d(4, track_running_stats=True), X, "takes the statistics of its input, not running ones"),
        (nn.InstanceNorm2d(4), X[0], "the kernel takes batches, not samples"),
    ],
)
def test_an_instance_norm_the_kernel_does_not_compute_stays_float(norm: nn.Module, x: torch.Tensor, why: str) -> None:
    model = net(lambda m, x: m.a(x), a=norm)
    reference, lowered = both(model, x)
    assert torch.equal(lowered(x), reference(x))
    assert why in str(qfx.explain(lowered))


PRODUCTS: dict[str, Callable[[Any, Any], Any]] = {
    "matmul": lambda m, x: torch.matmul(x, x.transpose(2, 3)),
    "operator": lambda m, x: x @ x.transpose(2, 3),
    "relu after": lambda m, x: F.relu(torch.matmul(x, x.transpose(2, 3))),
    "clamp after": lambda m, x: torch.matmul(x, x.transpose(2, 3)).clamp(-0.5, 1.0),
    "bmm": lambda m, x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_of_values_is_one_call_and_is_reported_as_float(name: str) -> None:
    model = net(lambda m, x: PRODUCTS[name](m, m.a(x)), a=nn.Conv2d(4, 4, 1))
    reference, lowered = both(model, X)
    assert torch.equal(lowered(X), reference(X))
    (node,) = lowered.graph.find_nodes(op="call_function", target=torch.ops.quantized.matmul)
    assert "multiplies floats inside" in lowered.plan["float"][node.name]
    assert node.name not in lowered.plan["kernels"]


def test_a_product_of_other_ranks_stays_as_it_is() -> None:
    model = net(lambda m, x: torch.matmul(m.a(x), m.p.t()), a=nn.Conv2d(4, 4, 1))
    model.p = nn.Parameter(torch.randn(3, 8))
    reference, lowered = both(model, X)
    assert torch.equal(lowered(X), reference(X))
    assert "matrices of one rank, not of 4 and" in str(qfx.explain(lowered))


def test_a_softmax_module_is_one_call_and_is_reported_as_float() -> None:
    reference, lowered = both(net(lambda m, x: m.soft(m.a(x)), a=nn.Conv2d(4, 4, 1), soft=nn.Softmax(1)), X)
    assert torch.equal(lowered(X), reference(X))
    assert isinstance(lowered.soft, qfx.nn.quantized.Softmax)
    assert "exponentials of floats" in lowered.plan["float"]["soft_1"]
    assert "soft_1" not in lowered.plan["kernels"]


LAYERS = {
    "relu": (lambda m, x: F.relu(m.a(x)), qfx.nn.intrinsic.quantized.ConvReLU2d),
    "relu6": (lambda m, x: F.relu6(m.a(x)), qfx.nn.quantized.Conv2d),
    "clamp": (lambda m, x: m.a(x).clamp(0, 1), qfx.nn.quantized.Conv2d),
    "relu, then a clamp": (lambda m, x: F.relu(m.a(x)).clamp(max=0.5), qfx.nn.intrinsic.quantized.ConvReLU2d),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_in_a_relu_and_leaves_a_clamp_to_saturation(name: str) -> None:
    function, expected = LAYERS[name]
    reference, lowered = both(net(function, a=nn.Conv2d(4, 4, 1)), X)
    assert torch.equal(lowered(X), reference(X))
    assert type(lowered.a) is expected
