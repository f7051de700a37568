"""Static quantization in FX mode: the original's kernels and numbers for ops without a weight, or better ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

ao = pytest.importorskip("torch.ao.quantization")
fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),  # the original's own
]


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def converted(library: Any, functions: Any, model: nn.Module, x: torch.Tensor) -> Any:
    # Both search histograms; min-max leaves nothing to differ by
    qconfig = library.QConfig(
        library.MinMaxObserver.with_args(quant_min=0, quant_max=127), library.default_weight_observer
    )
    prepared = functions.prepare_fx(
        model.eval(), library.get_default_qconfig_mapping("fbgemm").set_global(qconfig), (x,)
    )
    prepared(x)
    return functions.convert_fx(prepared)


def both(model: nn.Module, x: torch.Tensor) -> tuple[Any, Any]:
    return converted(qfx, qfx, model, x), converted(ao, fx, model, x)


SAME: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "instance norm 1d": (nn.Sequential(nn.InstanceNorm1d(4, affine=True)), (2, 4, 8)),
    "instance norm 2d": (nn.Sequential(nn.InstanceNorm2d(4)), (2, 4, 8, 8)),
    "instance norm 3d": (nn.Sequential(nn.InstanceNorm3d(4, affine=True)), (2, 4, 4, 4, 4)),
    "instance norm function": (Calls(F.instance_norm), (2, 4, 8, 8)),
    "layer norm": (nn.Sequential(nn.LayerNorm(8)), (4, 8)),
    "elu": (nn.Sequential(nn.ELU()), (4, 8)),
    "leaky relu": (nn.Sequential(nn.LeakyReLU()), (4, 8)),
    "hardswish": (nn.Sequential(nn.Hardswish()), (4, 8)),
    "batch norm": (nn.Sequential(nn.BatchNorm2d(4)), (2, 4, 8, 8)),
    "matmul": (Calls(lambda x: torch.matmul(x, x.t())), (4, 8)),
    "group norm": (nn.Sequential(nn.GroupNorm(2, 4)), (2, 4, 8, 8)),
    "add": (Calls(lambda x: x + x), (4, 8)),
    "mul": (Calls(lambda x: x * x), (4, 8)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_numbers(name: str) -> None:
    model, shape = SAME[name]
    x = torch.randn(shape)
    ours, theirs = both(model, x)
    assert torch.equal(ours(x), theirs(x))
    assert theirs(x).detach().abs().max() > 0


def test_scales_and_zero_points_are_kept_as_the_original_keeps_them() -> None:
    ours, theirs = (
        {
            name: (value.dtype, value.shape)
            for name, value in made.state_dict().items()
            if isinstance(value, torch.Tensor) and ("scale" in name or "zero_point" in name)
        }
        for made in both(nn.Sequential(nn.Linear(8, 8), nn.Hardswish(), nn.Linear(8, 8)), torch.randn(4, 8))
    )
    assert ours == theirs
    assert len(ours) > 4


def test_a_product_is_the_same_call() -> None:
    for made in both(Calls(lambda x: torch.matmul(x, x.t())), torch.randn(4, 8)):
        assert len(made.graph.find_nodes(op="call_function", target=torch.ops.quantized.matmul)) == 1
        assert not made.graph.find_nodes(op="call_function", target=torch.matmul)


@pytest.mark.parametrize("op", [nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Softmax(1)])
def test_ops_with_a_range_built_in_read_their_input_in_its_own(op: nn.Module) -> None:
    x = torch.linspace(-3, 3, 32).reshape(4, 8)
    ours, theirs = both(nn.Sequential(op), x)
    errors = [float((made(x) - op(x)).abs().max()) for made in (ours, theirs)]
    assert errors[0] < 0.03
    assert errors[1] > 0.05  # it sees [0, 1], or [-1, 1], of the input


def test_prelu_is_right_for_slopes_below_one() -> None:
    x = torch.randn(2, 4, 8, 8)
    ours, theirs = both(nn.Sequential(nn.PReLU(4)), x)
    errors = [float((made(x) - F.prelu(x, torch.full((4,), 0.25))).abs().max()) for made in (ours, theirs)]
    assert errors[0] < 0.1
    assert errors[1] > 1


HALVES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Sequential(nn.Linear(5, 4)), (2, 5)),
    "linear relu": (nn.Sequential(nn.Linear(5, 4), nn.ReLU()), (2, 5)),
    "function": (Calls(lambda x: F.linear(x, torch.eye(5) * 0.3, torch.ones(5) / 3)), (2, 5)),
    "add": (Calls(lambda x: x + x), (2, 5)),
    "add a number": (Calls(lambda x: x + 1), (2, 5)),
    "mul relu": (Calls(lambda x: F.relu(x * x)), (2, 5)),
    "sigmoid": (nn.Sequential(nn.Sigmoid()), (2, 5)),
    "moved": (Calls(lambda x: torch.sigmoid(x).reshape(-1)), (2, 5)),
    "pool": (Calls(lambda x: F.adaptive_avg_pool1d(x, 2)), (1, 2, 5)),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_floats(name: str) -> None:
    """With the one backend config of the original that has them."""
    native = pytest.importorskip("torch.ao.quantization.backend_config.native")
    model, shape = HALVES[name]
    x, references = torch.randn(shape), []
    for library, functions, backend in (
        (qfx, qfx, qfx.config.backend_config.get_test_only_legacy_native_backend_config()),
        (ao, fx, native.get_test_only_legacy_native_backend_config()),
    ):
        qconfig = ao.qconfig.float16_static_qconfig if library is ao else qfx.float16_static_qconfig
        mapping = library.QConfigMapping().set_global(qconfig)
        prepared = functions.prepare_fx(model.eval(), mapping, (x,), backend_config=backend)
        prepared(x)
        references.append(functions.convert_to_reference_fx(prepared, backend_config=backend))
    counted = [len(gm.graph.find_nodes(op="call_method", target="to")) for gm in references]
    assert counted[0] == counted[1]
    assert torch.equal(references[0](x), references[1](x))
