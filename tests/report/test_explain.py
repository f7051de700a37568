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
    assert (conv.status, conv.kernel, conv.rule) == ("integer", "quantized.conv2d (onednn)", "lower_module")
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


SEVEN = qfx.MinMaxObserver.with_args(reduce_range=True)


def uniform(activation: Any) -> qfx.QConfigMapping:
    return qfx.QConfigMapping().set_global(qfx.QConfig(activation, qfx.default_per_channel_weight_observer))


def test_overflow_risk_is_listed() -> None:
    entry = qfx.explain(lowered(uniform(SEVEN)))["conv"]
    assert entry.overflow == "beyond"  # 7-bit activations never overflow inside it
    assert "beyond the observed range could overflow 16 bits on CPUs without VNNI" in entry.notes[0]
    entry = qfx.explain(lowered(uniform(qfx.HistogramObserver)))["conv"]
    assert entry.overflow == "inside"
    assert "8-bit sums can overflow 16 bits on CPUs without VNNI" in entry.notes[0]


def overflows(model: nn.Module, mapping: Any, x: torch.Tensor, engine: str = "x86", **how: Any) -> list[Any]:
    """(kernel, overflow, notes) of the layers, in order."""
    torch.backends.quantized.engine = engine
    prepared = qfx.prepare_fx(model.eval(), mapping, (x,))
    prepared(x)
    found = qfx.explain(qfx.convert_fx(prepared, **how))
    return [(e.kernel, e.overflow, e.notes) for e in found if "conv" in e.kernel or "linear" in e.kernel]


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_a_layer_is_judged_by_the_codes_it_is_given(target: str) -> None:
    """A layer of 7 bits behind one of 8 reads 8."""
    model = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False), nn.Conv2d(64, 4, 1, bias=False))
    for layer in model:
        layer.weight.data.fill_(1.0)
    mapping = uniform(SEVEN).set_module_name("0", uniform(qfx.MinMaxObserver).global_qconfig)
    x = torch.ones(2, 64, 4, 4)
    x[0] = 0
    assert [risk for _, risk, _ in overflows(model, mapping, x, target=target)] == ["inside", "inside"]
    mapping = uniform(qfx.MinMaxObserver).set_module_name("0", uniform(SEVEN).global_qconfig)
    assert [risk for _, risk, _ in overflows(model, mapping, x, target=target)] == ["beyond", "beyond"]


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_a_layer_whose_input_is_clamped_is_no_risk(target: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU6(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), nn.ReLU6(), nn.Flatten())
    model.append(nn.Linear(128, 3))
    model[0].weight.data *= 20
    model[3].weight.data *= 20
    first, *rest = overflows(model, uniform(SEVEN), X, target=target)
    assert first[1] == "beyond"
    assert [risk for _, risk, _ in rest] == ["", ""]
    assert all(notes == () for _, _, notes in rest)


def test_fbgemms_depthwise_kernels_overflow_on_every_cpu() -> None:
    x = torch.ones(1, 32, 6, 6)
    eight, seven = uniform(qfx.MinMaxObserver), uniform(SEVEN)

    def layer(groups: int, out: int) -> nn.Module:
        conv = nn.Conv2d(32, out, 3, padding=1, groups=groups, bias=False)
        conv.weight.data.fill_(1.0)
        return nn.Sequential(conv)

    ((kernel, risk, notes),) = overflows(layer(32, 32), eight, x, "fbgemm")
    assert (kernel, risk) == ("quantized.conv2d (fbgemm)", "inside")
    assert notes == ("8-bit sums can overflow 16 bits on every CPU (1.98 of what fits)",)
    ((kernel, risk, notes),) = overflows(layer(32, 64), seven, x)
    assert (kernel, risk) == ("quantized.conv2d (fbgemm)", "beyond")
    assert notes == ("inputs beyond the observed range could overflow 16 bits on every CPU (1.98 of what fits)",)
    ((kernel, risk, notes),) = overflows(layer(16, 32), eight, x)
    assert (kernel, risk) == ("quantized.conv2d (fbgemm)", "inside")
    assert "on CPUs without VNNI" in notes[0]
    # onednn's depthwise kernels and all of qnnpack's add in 32 bits
    assert overflows(layer(32, 32), eight, x) == [("quantized.conv2d (onednn)", "", ())]
    assert overflows(layer(32, 32), eight, x, target="onednn") == [("onednn.conv2d", "", ())]
    assert overflows(layer(1, 32), eight, x, "qnnpack") == [("quantized.conv2d (qnnpack)", "", ())]


def test_summary_counts_what_overflows_inside_and_beyond() -> None:
    for model, said in ((Net(), "2 kernels"), (nn.Sequential(nn.Conv2d(4, 8, 3)), "1 kernel")):
        found = qfx.summary(lowered(uniform(qfx.HistogramObserver), model))
        assert found.risky == found.risky_inside == int(said[0])
        assert f"\n{said} can overflow 16 bits inside the observed range; explain says where" in str(found)
        assert "beyond" not in str(found)
        found = qfx.summary(lowered(uniform(SEVEN), model))
        assert (found.risky, found.risky_inside) == (int(said[0]), 0)
        assert f"\n{said} could overflow 16 bits, for inputs beyond the observed range" in str(found)
        assert "inside" not in str(found)


def test_a_clamp_of_a_reference_graph_is_no_computation() -> None:
    x = torch.randn(1024, 4, 16, 16)
    x[0, 0, 0, 0] = 50.0
    prepared = qfx.prepare_fx(nn.Sequential(nn.Conv2d(4, 4, 1)).eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    found = qfx.explain(qfx.convert_to_reference_fx(prepared))
    assert (found["clamp"].status, found["clamp"].reasons) == ("boundary", ())
    assert qfx.summary(qfx.convert_fx(prepared)).coverage_nodes == 1.0


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
    assert "quantized.conv2d (onednn) by lower_module" in text
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
