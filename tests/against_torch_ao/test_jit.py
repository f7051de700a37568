"""TorchScript mode: the original's numbers to the bit, with each library's own observers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import qfx

ao = pytest.importorskip("torch.ao.quantization")
ao_jit = pytest.importorskip("torch.ao.quantization.quantize_jit")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
]


class Network(nn.Module):
    """What the compiled passes quantize: layers with batch norm and relu, a residual, a pool, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        return self.fc(x.mean([2, 3]))  # type: ignore[no-any-return]


def _network() -> Any:
    torch.manual_seed(0)
    model = Network()
    for _ in range(3):  # batch norms that are not the identity
        model(torch.randn(8, 3, 12, 12))
    return torch.jit.script(model.eval())


def _calibrate(model: Any, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        model(batch)


def _theirs(flow: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The original warns where it uses ``reduce_range`` and ``.grad``; ours may not, so only its calls are quiet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use quant_min and quant_max", UserWarning)
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor", UserWarning)
        return flow(*args, **options)


CONFIGURATIONS: dict[str, Callable[[Any], Any]] = {
    "fbgemm": lambda library: library.get_default_qconfig("fbgemm"),
    "qnnpack": lambda library: library.get_default_qconfig("qnnpack"),
    "minmax": lambda library: library.default_qconfig,
    "per channel": lambda library: library.default_per_channel_qconfig,
    "moving": lambda library: library.QConfig(
        activation=library.MovingAverageMinMaxObserver.with_args(reduce_range=True, averaging_constant=0.3),
        weight=library.MovingAveragePerChannelMinMaxObserver.with_args(
            dtype=torch.qint8, qscheme=torch.per_channel_symmetric
        ),
    ),
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_static_quantization_is_the_originals(name: str, debug: bool) -> None:
    torch.manual_seed(1)
    batches = [torch.randn(4, 3, 12, 12) for _ in range(4)]
    of = CONFIGURATIONS[name]
    ours = qfx.quantize_jit(_network(), {"": of(qfx)}, _calibrate, [batches], debug=debug)
    theirs = _theirs(ao_jit.quantize_jit, _network(), {"": of(ao)}, _calibrate, [batches], debug=debug)
    assert [node.kind() for node in ours.inlined_graph.nodes()] == [
        node.kind() for node in theirs.inlined_graph.nodes()
    ]
    x = torch.randn(4, 3, 12, 12)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not torch.equal(ours(x), _network()(x))


@pytest.mark.parametrize("name", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig"])
def test_dynamic_quantization_is_the_originals(name: str) -> None:
    torch.manual_seed(0)
    script, x = torch.jit.script(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()), torch.randn(5, 16)
    ours = qfx.quantize_dynamic_jit(script, {"": getattr(qfx, name)})
    theirs = _theirs(ao_jit.quantize_dynamic_jit, script, {"": getattr(ao, name)})
    assert [node.kind() for node in ours.inlined_graph.nodes()] == [
        node.kind() for node in theirs.inlined_graph.nodes()
    ]
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not torch.equal(ours(x), script(x))


def test_folding_is_the_originals() -> None:
    x = torch.randn(4, 3, 12, 12)
    ours, theirs = qfx.fuse_conv_bn_jit(_network()), _theirs(ao_jit.fuse_conv_bn_jit, _network())
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
