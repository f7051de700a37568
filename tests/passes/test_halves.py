"""Static quantization to half floats: casts around every op, none around what only moves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.config.backend_config import get_test_only_legacy_native_backend_config as backend

MAPPING = qfx.QConfigMapping().set_global(qfx.float16_static_qconfig)
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b, self.fc = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8)), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, self.w, self.b)
        return torch.relu(self.fc(y.reshape(-1, 8).unsqueeze(0)) + 1)


def converted(model: nn.Module, *, reference: bool = False) -> Any:
    prepared = qfx.prepare_fx(model.eval(), MAPPING, (X,), backend_config=backend())
    prepared(X)
    return (qfx.convert_to_reference_fx if reference else qfx.convert_fx)(prepared)


def half(x: torch.Tensor) -> torch.Tensor:
    return x.half().float()


def right(model: Net) -> torch.Tensor:
    y = half(F.linear(half(X), half(model.w), half(model.b)))
    return half(torch.relu(half(model.fc(y.unsqueeze(0))) + 1))


def casts(gm: torch.fx.GraphModule) -> int:
    return len(gm.graph.find_nodes(op="call_method", target="to"))


def test_every_op_computes_on_rounded_values() -> None:
    model = Net()
    reference, lowered = converted(model, reference=True), converted(model)
    assert torch.equal(reference(X), right(model))
    assert torch.equal(lowered(X), right(model))
    assert type(lowered.fc) is qfx.nn.quantized.reference.Linear
    assert lowered.fc.weight_dtype is torch.float16


def test_what_only_moves_is_moved_cast() -> None:
    model = Net()
    # input, weight, bias, three results; and the two that are moved
    assert (casts(converted(model, reference=True)), casts(converted(model))) == (8, 6)
    (moved,) = converted(model).graph.find_nodes(op="call_method", target="reshape")
    assert moved.args[0].target == "to"


def test_a_value_others_read_before_it_is_moved_stays_as_it_is() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            y = x + x
            return y.reshape(-1), y * 2

    lowered = converted(Both())
    for found, expected in zip(lowered(X), (half(half(X) * 2).reshape(-1), half(half(half(X) * 2) * 2)), strict=True):
        assert torch.equal(found, expected)


def test_reports_say_that_no_kernel_takes_them() -> None:
    gm = converted(Net())
    entries = {entry.node: entry for entry in qfx.explain(gm).entries}
    assert {entry.status for name, entry in entries.items() if name.startswith(("to", "dequantize"))} == {"boundary"}
    computing = [entry for entry in entries.values() if entry.op in ("linear", "Linear", "relu")]
    assert len(computing) == 3
    assert all("half floats have no kernel here" in str(entry.reasons) for entry in computing)
    assert qfx.summary(gm).nodes["float"] == 6


def test_copies_and_pickles_keep_them() -> None:
    model = Net()
    gm = converted(model)
    for twin in (copy.deepcopy(gm), pickle.loads(pickle.dumps(gm))):
        assert torch.equal(twin(X), gm(X))
        assert qfx.summary(twin).nodes == qfx.summary(gm).nodes


def test_a_mapping_for_convert_leaves_layers_out() -> None:
    mapping = copy.deepcopy(MAPPING).set_object_type(nn.Linear, qfx.float16_static_qconfig)
    prepared = qfx.prepare_fx(Net().eval(), mapping, (X,), backend_config=backend())
    prepared(X)
    without = copy.deepcopy(mapping).set_object_type(nn.Linear, None)
    gm = qfx.convert_fx(prepared, qconfig_mapping=without)
    assert type(gm.get_submodule("fc")) is nn.Linear
