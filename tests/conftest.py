"""Settings every test shares."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.fx import GraphModule

from qfx.graph.kept import KeptGraphModule
from qfx.passes import pipeline

# Two workers share two cores; one thread each is faster than two that wait for one another.
torch.set_num_threads(1)

# torch warns once a process, from C++, when a quantized dtype is first used. Warnings are errors in tests, so whichever
# test came first would fail: use one here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> None:
    """What a module of tests draws when it is imported is the same in every run, whichever modules came before."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _engine() -> object:
    """A test that sets the quantized engine does not set it for the next one."""
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before


@pytest.fixture
def codes() -> Callable[..., torch.Tensor]:
    """A quint8 tensor of random codes, both ends of the range included."""

    def make(*shape: int, scale: float = 0.02, zero_point: int = 50) -> torch.Tensor:
        stored = torch.randint(0, 256, shape, dtype=torch.uint8)
        stored.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)
        return torch._make_per_tensor_quantized_tensor(stored, scale, zero_point)

    return make


@pytest.fixture
def int8() -> Callable[..., torch.Tensor]:
    """A qint8 weight of random codes, per tensor or per channel along ``axis``."""

    def make(*shape: int, axis: int | None = None) -> torch.Tensor:
        weight = torch.randn(*shape)
        if axis is None:
            return torch.quantize_per_tensor(weight, 0.02, 0, torch.qint8)
        scales = torch.linspace(0.01, 0.03, shape[axis], dtype=torch.double)
        return torch.quantize_per_channel(weight, scales, torch.zeros(shape[axis], dtype=torch.long), axis, torch.qint8)

    return make


@pytest.fixture(autouse=True)
def _linted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph of the suite is linted as torch does it, too; `fault` asks only what a pass could get wrong."""
    plain, adopt = pipeline.fault, KeptGraphModule.adopt.__func__

    def fault(gm: GraphModule) -> str | None:
        gm.graph.lint()
        return plain(gm)

    def adopted(cls: type[KeptGraphModule], gm: GraphModule, *args: object) -> KeptGraphModule:
        gm.graph.lint()
        return adopt(cls, gm, *args)

    monkeypatch.setattr(pipeline, "fault", fault)
    monkeypatch.setattr(KeptGraphModule, "adopt", classmethod(adopted))
