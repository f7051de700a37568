"""A mapping for convert leaves layers out that were prepared."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import ConfigError, DowngradeError
from qfx.nn import intrinsic, quantized

QCONFIG = qfx.get_default_qconfig("x86")
X = torch.randn(6, 5)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair, self.last = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.mul(torch.add(self.pair(x), 4), 5))


def _mapping(**changed: Any) -> qfx.QConfigMapping:
    table: dict[Any, Any] = {nn.Linear: QCONFIG, torch.add: QCONFIG, torch.mul: QCONFIG}
    mapping = qfx.QConfigMapping().set_module_name("pair.0", changed.get("first", QCONFIG))
    for kind, qconfig in table.items():
        mapping.set_object_type(kind, changed.get(kind.__name__, qconfig))
    return mapping


def _prepared() -> Any:
    prepared = qfx.prepare_fx(Net().eval(), _mapping(), (X,))
    prepared(X)
    return prepared


def test_a_layer_is_left_out_by_its_name() -> None:
    made = qfx.convert_fx(_prepared(), qconfig_mapping=_mapping(first=None))
    kinds = [type(made.get_submodule(path)) for path in ("pair.0", "pair.1", "last")]
    assert kinds == [nn.Linear, quantized.Linear, quantized.Linear]
    assert qfx.explain(made)["pair_0"].reasons == ("the mapping for convert leaves it float (module_name 'pair.0')",)


def test_a_kind_is_left_out_but_for_a_name() -> None:
    prepared = _prepared()
    made = qfx.convert_fx(prepared, qconfig_mapping=_mapping(Linear=None))
    kinds = [type(made.get_submodule(path)) for path in ("pair.0", "pair.1", "last")]
    assert kinds == [quantized.Linear, nn.Linear, nn.Linear]
    assert (made(X) - prepared(X)).abs().max() < 1
    everything = qfx.convert_fx(prepared)
    assert type(everything.last) is quantized.Linear


def test_a_function_between_quantized_layers_is_left_out() -> None:
    made = qfx.convert_fx(_prepared(), qconfig_mapping=_mapping(mul=None))
    assert [e.status for e in qfx.explain(made) if e.op == "mul"] == ["float"]


def test_a_pickled_model_is_asked_the_same() -> None:
    prepared = pickle.loads(pickle.dumps(_prepared()))
    made = qfx.convert_fx(prepared, qconfig_mapping=_mapping(first=None))
    assert type(made.get_submodule("pair.0")) is nn.Linear


def test_the_reference_graph_leaves_them_out_too() -> None:
    made = qfx.convert_to_reference_fx(_prepared(), qconfig_mapping=_mapping(first=None))
    assert type(made.get_submodule("pair.0")) is nn.Linear


def test_a_layer_prepare_did_not_name_is_left_out() -> None:
    made = qfx.convert_fx(_prepared(), qconfig_mapping=_mapping().set_module_name("last", None))
    kinds = [type(made.get_submodule(path)) for path in ("pair.0", "pair.1", "last")]
    assert kinds == [quantized.Linear, quantized.Linear, nn.Linear]
    order = _mapping().set_module_name_object_type_order("pair", nn.Linear, 1, None)
    made = qfx.convert_fx(_prepared(), qconfig_mapping=order)
    assert type(made.get_submodule("pair.1")) is nn.Linear


@pytest.mark.parametrize("mapping", [None, {}, _mapping(), _mapping().set_module_name("last", QCONFIG)])
def test_the_same_again_leaves_nothing_out(mapping: Any) -> None:
    made = qfx.convert_fx(_prepared(), qconfig_mapping=mapping)
    assert all(type(made.get_submodule(path)) is quantized.Linear for path in ("pair.0", "pair.1", "last"))


def test_a_name_the_model_does_not_have() -> None:
    mapping = _mapping().set_module_name("nowhere", None)
    with pytest.warns(UserWarning, match="for convert matches nothing in the model: module_name 'nowhere'"):
        qfx.convert_fx(_prepared(), qconfig_mapping=mapping)
    with pytest.raises(DowngradeError, match="module_name 'nowhere'"):
        qfx.convert_fx(_prepared(), qconfig_mapping=mapping, strict=True)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        (qfx.QConfigMapping(), r"Missing key object_type torch\.nn\.\S*Linear in convert QConfigMapping"),
        (_mapping().set_global(QCONFIG), "Expected global qconfigs to be the same"),
        (
            _mapping(first=qfx.default_qconfig),
            r"'pair\.0' of the mapping for convert .* the same as in prepare",
        ),
        (
            _mapping().set_module_name("last", qfx.default_qconfig),
            r"last \(.*test_skip.py:\d+.*\): module_name 'last' of the mapping for convert is expected to be the same",
        ),
        (3, "qconfig_mapping is a QConfigMapping or its dictionary, got int"),
    ],
)
def test_another_mapping_is_refused(mapping: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        qfx.convert_fx(_prepared(), qconfig_mapping=mapping)


def test_what_trained_and_is_left_out_goes_on_in_float() -> None:
    """No weight is rounded any more, and batch norms are folded, as where nothing had been prepared."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.Linear(4, 2)).train()
    mapping, images = qfx.get_default_qat_qconfig_mapping("x86"), torch.randn(4, 3, 8, 8)
    prepared = qfx.prepare_qat_fx(model, mapping, (images,))
    prepared(images)
    prepared.eval()
    for name in ("0", "3", "4"):
        mapping.set_module_name(name, None)
    made = qfx.convert_fx(prepared, qconfig_mapping=mapping)
    left = {name: type(module) for name, module in made.named_children()}
    assert left == {"0": intrinsic.ConvReLU2d, "3": nn.Conv2d, "4": nn.Linear}
    norm = prepared.get_submodule("0").bn
    expected = nn.Sequential(model[0], norm, *model[2:]).eval()
    torch.testing.assert_close(made(images), expected(images))
    assert type(prepared.get_submodule("4")) is not nn.Linear  # the prepared model may go on training
