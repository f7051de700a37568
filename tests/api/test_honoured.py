"""What a mapping asks for and does not get: listed, warned of where nothing is left of an entry, refused by strict."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import DowngradeError

X = torch.randn(4, 8)
WEIGHT = qfx.default_weight_observer
DEFAULT = qfx.default_qconfig


def everywhere(activation: Any, weight: Any = WEIGHT) -> qfx.QConfigMapping:
    return qfx.QConfigMapping().set_global(qfx.QConfig(activation, weight))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w)


MODELS = {
    "module": lambda: nn.Sequential(nn.Linear(8, 8)),
    "fused": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
    "function": Functional,
}
OBSERVED = (torch.qint8, torch.qint32, torch.int8, torch.int16, torch.quint4x2, torch.float8_e5m2)
CAST = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
REFUSED = {
    **{f"activation {dtype}": (qfx.MinMaxObserver.with_args(dtype=dtype), WEIGHT) for dtype in OBSERVED},
    **{f"activation {dtype}": (qfx.PlaceholderObserver.with_args(dtype=dtype), WEIGHT) for dtype in CAST},
    **{
        f"weight {dtype}": (qfx.MinMaxObserver, qfx.MinMaxObserver.with_args(dtype=dtype))
        for dtype in (torch.quint8, torch.quint4x2)
    },
    "weight none": (qfx.MinMaxObserver, None),
    "activation none": (None, WEIGHT),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("asked", REFUSED)
def test_a_dtype_the_backend_does_not_take(asked: str, model: str) -> None:
    made, mapping = MODELS[model]().eval(), everywhere(*REFUSED[asked])
    with pytest.raises(DowngradeError, match=r"1 operators cannot be quantized .* the backend takes torch.qu?int8"):
        qfx.prepare_fx(made, mapping, (X,), strict=True)
    with pytest.warns(UserWarning, match="nothing can be quantized .* global, for .* the backend takes") as caught:
        prepared = qfx.prepare_fx(made, mapping, (X,))
    assert len(caught) == 1
    prepared(X)
    assert torch.equal(qfx.convert_fx(prepared)(X), made(X))
    with pytest.raises(DowngradeError, match="prepare_fx could not quantize 1 operators"):
        qfx.convert_fx(prepared, strict=True)
    with pytest.raises(DowngradeError, match="prepare_fx could not quantize 1 operators"):
        qfx.convert_to_reference_fx(prepared, strict=True)


@pytest.mark.parametrize("target", ["native", "onednn", "reference"])
@pytest.mark.parametrize("weight", [WEIGHT, qfx.default_per_channel_weight_observer])
@pytest.mark.parametrize("model", MODELS)
def test_plain_dtypes_mean_the_quantized_ones(model: str, weight: Any, target: str) -> None:
    made = MODELS[model]().eval()
    outputs = []
    for activation, kind in ((torch.quint8, torch.qint8), (torch.uint8, torch.int8)):
        observer = qfx.MinMaxObserver.with_args(dtype=activation)
        prepared = qfx.prepare_fx(made, everywhere(observer, weight.with_args(dtype=kind)), (X,), strict=True)
        prepared(X)
        outputs.append(qfx.convert_fx(prepared, target=target, strict=True)(X))
    assert torch.equal(*outputs)


def test_an_op_without_a_pattern_is_no_downgrade_under_the_global_entry() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).eval()
    prepared = qfx.prepare_fx(model, qfx.QConfigMapping().set_global(DEFAULT), (X,), strict=True)
    prepared(X)
    assert qfx.summary(qfx.convert_fx(prepared, strict=True)).coverage_macs == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (lambda m: m.set_object_type(nn.GELU, DEFAULT), "object_type torch.nn.GELU"),
        (lambda m: m.set_module_name("1", DEFAULT), "module_name '1'"),
        (lambda m: m.set_module_name_regex("1", DEFAULT), "module_name_regex '1'"),
        (
            lambda m: m.set_module_name_object_type_order("", nn.GELU, 0, DEFAULT),
            r"module_name_object_type_order \('', torch.nn.GELU, 0\)",
        ),
    ],
)
def test_an_entry_that_names_such_an_op_is_in_vain(entry: Any, said: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval()
    mapping = entry(qfx.QConfigMapping().set_global(DEFAULT))
    message = (
        f"nothing can be quantized as parts of the QConfigMapping say: {said}, for _1 .*: no pattern of the backend"
    )
    with pytest.warns(UserWarning, match=message):
        qfx.prepare_fx(model, mapping, (X,))
    with pytest.raises(DowngradeError, match=message):
        qfx.prepare_fx(model, mapping, (X,), strict=True)


def test_an_entry_some_of_whose_ops_are_quantized_is_not_in_vain() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 8)).eval()
    qfx.prepare_fx(model, qfx.QConfigMapping().set_module_name("0", DEFAULT), (X,), strict=True)


def test_what_was_folded_has_what_it_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()).eval()
    mapping = qfx.QConfigMapping().set_object_type(nn.Conv2d, DEFAULT)
    for kind in (nn.BatchNorm2d, nn.ReLU, nn.Dropout):
        mapping.set_object_type(kind, DEFAULT)
    qfx.prepare_fx(model, mapping, (torch.randn(1, 3, 4, 4),), strict=True)


def test_strict_refuses_one_op_among_others() -> None:
    """The linear layer is quantized, the sigmoid's observer does not suit: listed, and an error if strict."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()).eval()
    mapping = everywhere(qfx.MinMaxObserver)
    prepared = qfx.prepare_fx(model, mapping, (X,))
    assert "use a FixedQParamsObserver" in prepared.plan["float"]["_1"]
    with pytest.raises(DowngradeError, match=r"1 operators cannot .* _1 \(.*, 1\): input: the kernel has scale"):
        qfx.prepare_fx(model, mapping, (X,), strict=True)


@pytest.mark.parametrize(
    "qconfig",
    [None, qfx.QConfig(None, None), qfx.QConfig(nn.Identity, nn.Identity), qfx.default_weight_only_qconfig],
)
def test_a_config_that_asks_for_floats_is_honoured_by_them(qconfig: Any) -> None:
    gm = qfx.prepare_fx(nn.Sequential(nn.ReLU()).eval(), qfx.QConfigMapping().set_global(qconfig), (X,), strict=True)
    assert gm.plan["float"] == {"_0": "the config leaves it float (global)"}


def test_a_dynamic_config_asks_nothing_of_an_op_without_a_weight() -> None:
    mapping = qfx.QConfigMapping().set_global(qfx.default_dynamic_qconfig)
    gm = qfx.prepare_fx(nn.Sequential(nn.ReLU()).eval(), mapping, (X,), strict=True)
    assert gm.plan["float"] == {"_0": "the config leaves it float (global)"}


def test_the_default_mappings_are_honoured_without_a_word() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 1), nn.PReLU(), nn.LayerNorm([4, 4]), nn.Sigmoid(), nn.Softmax(1)
    )
    for backend in ("x86", "fbgemm", "qnnpack", "onednn"):
        mapping = qfx.get_default_qconfig_mapping(backend)
        qfx.prepare_fx(layers.eval(), mapping, (torch.randn(1, 4, 4, 4),), strict=True)


# -- exceptions that match nothing ---------------------------------------------------------------------------------
def keeping(*, names: Any = (), classes: Any = ()) -> qfx.PrepareCustomConfig:
    custom = qfx.PrepareCustomConfig()
    return custom.set_non_traceable_module_names(list(names)).set_non_traceable_module_classes(list(classes))


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        (keeping(names=["nope", "0"]), "non_traceable_module_name 'nope'"),
        (keeping(classes=[nn.LSTM, nn.Linear]), "non_traceable_module_class LSTM"),
    ],
)
def test_modules_to_keep_that_the_model_does_not_have(custom: qfx.PrepareCustomConfig, said: str) -> None:
    model, mapping = nn.Sequential(nn.Linear(8, 8)).eval(), qfx.QConfigMapping()
    message = f"part of the PrepareCustomConfig matches nothing that the model calls: {said}"
    with pytest.warns(UserWarning, match=f"{message}$") as caught:
        qfx.prepare_fx(model, mapping, (X,), custom)
    assert len(caught) == 1
    with pytest.raises(DowngradeError, match=f"{message}. Remove these entries"):
        qfx.prepare_fx(model, mapping, (X,), custom, strict=True)


def test_modules_to_keep_that_are_kept_are_no_mistake() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8))).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gm = qfx.prepare_fx(model, qfx.QConfigMapping(), (X,), keeping(names=["0"]), strict=True)
    assert [node.target for node in gm.graph.find_nodes(op="call_module")] == ["0"]
