"""Same inputs, same switches: the outputs, gradients, parameters and state of the original."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch

import qfx
from qfx import fake_quantize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ao = pytest.importorskip("torch.ao.quantization")

DEFAULTS = [name for name in fake_quantize.__all__ if name.startswith(("default_", "fused_"))]
BATCHES = [torch.randn(8, 6) * s + o for s, o in ((1, 0), (0.1, 3), (20, -4), (1e-4, 0), (0, 0))]


def pair(name: str) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(qfx, name)(), getattr(ao.fake_quantize, name)()


@pytest.mark.parametrize("name", [n for n in DEFAULTS if "histogram" not in n])
def test_defaults_round_alike_bit_for_bit(name: str) -> None:
    mine, theirs = pair(name)
    assert str(mine).splitlines()[1].strip() == str(theirs).splitlines()[1].strip()
    for step, batch in enumerate(BATCHES):
        if step == 3:
            for each in (mine, theirs):
                each.disable_observer()
        a, b = batch.clone().requires_grad_(), batch.clone().requires_grad_()
        found, expected = mine(a), theirs(b)
        assert torch.equal(found, expected)
        found.sum().backward()
        expected.sum().backward()
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for x, y in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
            assert torch.equal(x, y.to(x.dtype))


def test_a_histogram_inside_is_within_one_bin() -> None:
    mine, theirs = pair("default_histogram_fake_quant")
    x = BATCHES[0]
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=float(theirs.scale) * 1.01)


@pytest.mark.parametrize("name", DEFAULTS)
def test_states_load_into_one_another(name: str) -> None:
    mine, theirs = pair(name)
    theirs(BATCHES[0])
    mine.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(mine.scale, theirs.scale)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    assert list(mine.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize(
    "name", ["FakeQuantizeBase", "FakeQuantize", "FixedQParamsFakeQuantize", "FusedMovingAvgObsFakeQuantize"]
)
def test_signatures(name: str) -> None:
    def parameters(cls: Any) -> list[tuple[str, Any, Any]]:
        each = inspect.signature(cls.__init__).parameters.values()
        plain = (int, bool, str, type(None))
        return [(p.name, p.kind, p.default if isinstance(p.default, plain) else None) for p in each]

    assert parameters(getattr(qfx, name)) == parameters(getattr(ao, name))
