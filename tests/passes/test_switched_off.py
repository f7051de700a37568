"""Dropout of models that trained: what comes behind it is integer, in the parameters of what came before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import qfx

X = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, body: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.body = body
        self.c, self.d, self.m, self.e = nn.Conv2d(4, 8, 3), nn.Dropout(0.2), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(8 * 9, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


def trained(body: Callable[[Any, torch.Tensor], Any]) -> qfx.ObservedGraphModule:
    torch.manual_seed(0)
    prepared = qfx.prepare_qat_fx(Net(body).train(), qfx.get_default_qat_qconfig_mapping("x86"), (X,))
    for _ in range(5):
        prepared(X)
    prepared.eval()
    return prepared


BODIES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "a pool behind it": lambda m, x: m.e(m.m(m.d(m.c(x)))),
    "a pool and a flatten": lambda m, x: m.fc(m.d(m.m(m.c(x))).flatten(1)),
    "two of them": lambda m, x: m.e(m.d(m.m(m.d(m.c(x))))),
    "a branch": lambda m, x: (lambda y: m.e(m.m(y)) + m.e(m.m(y)))(m.d(m.c(x))),
    "last": lambda m, x: m.d(m.c(x)),
}


@pytest.mark.parametrize("name", BODIES)
def test_all_of_it_is_integer(name: str) -> None:
    prepared = trained(BODIES[name])
    rounded = prepared(X).detach()  # in evaluation mode, where dropout gives what it takes
    made = qfx.convert_fx(prepared, strict=True)
    assert qfx.summary(made).coverage_nodes == 1.0
    assert (made(X) - rounded).abs().mean() < 0.05 * rounded.abs().mean()
    reference = qfx.convert_to_reference_fx(prepared)
    step = float(next(value for key, value in list(made.named_buffers())[::-1] if "scale" in key))
    torch.testing.assert_close(made(X), reference(X), rtol=0, atol=2.01 * step)


def test_what_is_joined_with_other_values_keeps_the_scale_of_all() -> None:
    prepared = trained(lambda m, x: (lambda y: m.e(torch.cat([m.d(y), 10 * y], 1)[:, ::2]))(m.c(x)))
    (join,) = prepared.graph.find_nodes(op="call_function", target=torch.cat)
    (watcher,) = join.users
    scale = prepared.get_submodule(str(watcher.target)).scale
    made = qfx.convert_fx(prepared, strict=True)
    (kernel,) = made.graph.find_nodes(op="call_function", target=torch.ops.quantized.cat)
    assert float(made.get_buffer(str(kernel.args[2]))) == pytest.approx(float(scale))  # type: ignore[arg-type]


def test_behind_a_float_value_it_leaves_the_observer() -> None:
    prepared = trained(lambda m, x: m.e(m.m(m.d(torch.cumsum(m.c(x), 1)))))
    made = qfx.convert_fx(prepared)
    names = [str(n.target) if n.op == "call_module" else n.name for n in made.graph.nodes if n.op.startswith("call")]
    assert names.index("cumsum") < next(i for i, n in enumerate(names) if i > names.index("cumsum") and "quantize" in n)
    assert not any("dropout" in name for name in names)


def test_the_prepared_model_goes_on_as_it_was() -> None:
    prepared = trained(BODIES["a pool behind it"])
    before = {key: value.clone() for key, value in prepared.state_dict().items()}
    qfx.convert_fx(prepared)
    assert all(torch.equal(before[key], value) for key, value in prepared.state_dict().items())
    prepared.train()(X)
