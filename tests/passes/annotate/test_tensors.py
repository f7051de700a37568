"""What is no tensor is never observed: tuples, lists, parts of them, sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.capture import capture
from qfx.graph import GraphView
from qfx.passes.annotate.tensors import not_float, sequences

X = torch.randn(2, 5, 8)


class Net(nn.Module):
    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.lstm, self.attention = nn.LSTM(8, 8, batch_first=True), nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, self.fc(x))


def recurrent(m: Net, x: Any) -> Any:
    y, (h, _) = m.lstm(x)
    return m.head(y), m.head(h[-1])


SEQUENCES: dict[str, Callable[[Any, Any], Any]] = {
    "lstm": recurrent,
    "attention": lambda m, x: m.head(m.attention(x, x, x)[0]),
    "topk": lambda m, x: m.head(x * torch.topk(x, 2)[0].sum()),
    "max along a dimension": lambda m, x: m.head(x + x.max(2, keepdim=True)[0]),
    "named values": lambda m, x: m.head(x + x.min(dim=2, keepdim=True).values),
    "sort": lambda m, x: m.head(torch.sort(x)[0]),
    "list as one value": lambda m, x: m.head(torch.cat(x.split([3, 5], 2), 2)),
    "part of a list": lambda m, x: m.head(torch.cat(x.chunk(2, 2)[::-1], 2)),
    "stack of a list": lambda m, x: m.head(torch.stack(x.unbind(1))),
    "items of a list": lambda m, x: m.head(torch.cat([x.chunk(2, 2)[1], x.chunk(2, 2)[0]], 2)),
}


def first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("name", SEQUENCES)
@torch.no_grad()
def test_what_returns_several_tensors_runs_in_float_and_the_rest_is_quantized(name: str) -> None:
    model = Net(SEQUENCES[name]).eval()
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (X,))
    expected = model(X)
    torch.testing.assert_close(first(prepared(X)), first(expected))
    for target in ("native", "onednn"):
        int8 = qfx.convert_fx(prepared, target=target)
        noise = (first(int8(X)) - first(expected)).square().mean() / first(expected).square().mean()
        assert float(noise) < 0.05
        kernels = [entry.kernel for entry in qfx.explain(int8) if "linear" in entry.kernel]
        assert len(kernels) == (3 if name == "lstm" else 2)


def test_the_reasons_name_what_is_no_tensor() -> None:
    def reasons(function: Callable[[Any, Any], Any]) -> dict[str, str]:
        model = Net(function).eval()
        return dict(qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (X,)).plan["float"])

    assert reasons(SEQUENCES["list as one value"])["cat"] == "the tensors it takes are one value of the graph, split"
    part = reasons(SEQUENCES["part of a list"])["getitem"]
    assert part == "it takes a part of what chunk returns, and computes no float tensor"
    assert reasons(SEQUENCES["topk"])["topk"] == "no pattern of the backend has topk as its last op"


def names(found: set[torch.fx.Node]) -> set[str]:
    return {node.name for node in found}


def test_sequences_are_splits_unknown_calls_and_parts_of_them() -> None:
    def function(m: Any, x: Any) -> Any:
        a, b = x.chunk(2, 1)
        pair = torch.aminmax(x)
        return a + b + pair[0] + torch.relu(x)[0] + x.max(1)[0].sum() + x.max()

    view = GraphView(capture(Net(function).eval()))
    assert names(sequences(view)) == {"chunk", "aminmax", "getitem_2", "max_1", "getitem_4"}


def test_facts_of_tensors_are_no_tensors_but_values_are() -> None:
    view = GraphView(capture(Net(lambda m, x: x.reshape(x.shape[0], -1) + x.T.sum() + x.max(1).values.sum()).eval()))
    found = names(not_float(view, (X,)))
    assert "getattr_1" in found  # shape
    assert {"getattr_2", "getattr_3"}.isdisjoint(found)  # T, values
