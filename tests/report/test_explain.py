from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.bn(self.conv(x)))
        x = F.gelu(x)  # this line is named
        return self.head(x.mean([2, 3]))


X = torch.randn(2, 4, 8, 8)


def lowered(mapping: Any = None, model: nn.Module | None = None) -> qfx.QuantizedGraphModule:
    mapping = mapping or qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx((model or Net()).eval(), mapping, (X,))
    prepared(X)
    return qfx.convert_fx(prepared)


def test_every_node_has_a_verdict() -> None:
    gm = lowered()
    found = qfx.explain(gm)
    assert {e.node for e in found} == {n.name for n in gm.graph.nodes if n.op != "get_attr"}
    conv = found["conv"]
    assert (conv.status, conv.kernel, conv.rule) == ("integer", "quantized.conv2d_relu (onednn)", "lower_module")
    assert conv.stands_for == ("conv", "bn", "relu6")
    assert conv.line.startswith(__file__)
    assert conv.macs == 8 * 8 * 8 * 4 * 9


def test_a_float_node_says_why_and_where() -> None:
    gelu = qfx.explain(lowered())["gelu"]
    assert gelu.status == "float"
    assert gelu.reasons == ("no pattern of the backend has gelu as its last op",)
    source = Path(__file__).read_text().splitlines()
    assert "this line is named" in source[int(gelu.line.rpartition(":")[2]) - 1]
    by_config = qfx.explain(lowered(qfx.get_default_qconfig_mapping("x86").set_module_name("head", None)))["head"]
    assert by_config.reasons == ("the config leaves it float (module_name 'head')",)


def test_a_kernel_that_declines_says_why() -> None:
    model = nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(4, 4, 1))
    entry = qfx.explain(lowered(model=model))["_0"]
    assert entry.status == "float"
    assert any("no quantized kernel pads by 'replicate'" in reason for reason in entry.reasons)


def test_overflow_risk_is_listed() -> None:
    notes = qfx.explain(lowered())["conv"].notes
    assert len(notes) == 1
    assert "beyond the observed range" in notes[0]  # 7-bit activations never overflow inside it
    wide = qfx.QConfig(qfx.HistogramObserver, qfx.default_per_channel_weight_observer)
    notes = qfx.explain(lowered(qfx.QConfigMapping().set_global(wide)))["conv"].notes
    assert "8-bit sums can overflow" in notes[0]


def test_doubtful_statistics_are_listed() -> None:
    prepared = qfx.prepare_fx(Net().eval(), qfx.get_default_qconfig_mapping("x86"), (X,))
    with pytest.warns(UserWarning, match="doubtful"):
        gm = qfx.convert_fx(prepared)
    assert any("never ran" in note for note in qfx.explain(gm)["conv"].notes)


def test_text_and_dict_say_the_same() -> None:
    found = qfx.explain(lowered())
    text, data = str(found), found.to_dict()
    assert data["gelu"]["reasons"] == ("no pattern of the backend has gelu as its last op",)
    assert "no pattern of the backend has gelu" in text
    assert "quantized.conv2d_relu (onednn) by lower_module" in text
    assert [e.node for e in found.float_nodes()] == ["gelu"]
    with pytest.raises(KeyError, match="no node 'nothing'"):
        found["nothing"]


def test_summary_counts() -> None:
    gm = lowered()
    found = qfx.summary(gm)
    assert found.nodes["integer"] == sum(found.kernels.values())
    assert found.coverage_macs == 1.0
    assert 0.5 < found.coverage_nodes < 1
    assert found.bytes_before == sum(v.numel() * v.element_size() for v in Net().state_dict().values())
    assert found.bytes_after < found.bytes_before
    assert found.reasons == {"no pattern of the backend has gelu as its last op": 1}
    text = str(found)
    assert "100.0% of multiply-accumulates" in text
    assert "could overflow" in text


def test_a_prepared_and_a_reference_model_can_be_explained() -> None:
    prepared = qfx.prepare_fx(Net().eval(), qfx.get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    for gm in (prepared, qfx.convert_to_reference_fx(prepared)):
        conv = qfx.explain(gm)["conv"]
        assert conv.reasons == ("to be quantized: a reference or prepared graph computes in float",)
        assert qfx.summary(gm).nodes.get("integer", 0) == 0


def test_another_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="take what prepare_fx or convert_fx returned, got Net"):
        qfx.explain(Net())


def test_taking_an_item_out_of_an_input_is_no_computation() -> None:
    class Items(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, d: dict[str, torch.Tensor], pair: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return self.a(d["x"]) + self.b(pair[0])

    example = ({"x": torch.randn(3, 4)}, (torch.randn(3, 4),))
    prepared = qfx.prepare_fx(Items().eval(), qfx.get_default_qconfig_mapping("x86"), example)
    prepared(*example)
    int8 = qfx.convert_fx(prepared)
    assert qfx.summary(int8).coverage_nodes == 1.0
    assert qfx.summary(int8).reasons == {}
    assert "takes an item out of an input" in qfx.explain(int8)["getitem"].reasons[0]
