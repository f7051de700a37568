from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import qfx
from qfx.config import private_names, qconfig_checks
from qfx.config.default_mappings import mapping_with_default
from qfx.config.qconfig import factories_equal
from qfx.errors import ConfigError


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolutions_have_one_weight_scale(dims: int) -> None:
    layer = getattr(nn, f"ConvTranspose{dims}d")(1, 1, 1)
    for qconfig in (qfx.default_per_channel_qconfig, qfx.get_default_qconfig("x86")):
        with pytest.raises(ConfigError, match="Per channel weight observer is not supported yet for ConvTranspose"):
            qconfig_checks.assert_valid_qconfig(qconfig, layer)
    rounded = qfx.get_default_qat_qconfig("x86")  # what trains may end as a reference graph, which has such scales
    for fine in (None, qfx.default_qconfig, qfx.QConfig(qfx.default_observer, None), rounded):
        qconfig_checks.assert_valid_qconfig(fine, layer)
    qconfig_checks.assert_valid_qconfig(qfx.default_per_channel_qconfig, nn.Conv1d(1, 1, 1))


def test_memory() -> None:
    memoryless = qfx.MovingAverageMinMaxObserver.with_args(averaging_constant=1)
    assert qconfig_checks.activation_is_memoryless(qfx.QConfig(memoryless, None))
    assert qconfig_checks.activation_is_memoryless(qfx.default_dynamic_qat_qconfig)
    assert not qconfig_checks.activation_is_memoryless(qfx.default_qat_qconfig)
    assert not qconfig_checks.activation_is_memoryless(qfx.default_qconfig)


def test_observers_follow_the_module() -> None:
    layer = nn.Linear(1, 1)
    qconfig = qconfig_checks.on_device_of(
        qfx.QConfig(qfx.default_observer, qfx.default_per_channel_weight_observer), layer
    )
    assert qconfig.activation().min_val.device.type == "cpu"
    layer.to("meta")
    assert qconfig.activation().min_val.device.type == "meta"
    assert qconfig.weight().min_val.device.type == "meta"
    empty = qconfig_checks.on_device_of(qfx.default_qconfig, nn.ReLU())
    assert empty.activation().min_val.device.type == "cpu"


def test_what_takes_no_device_stays() -> None:
    qconfig = qfx.QConfig(qfx.PlaceholderObserver, nn.Identity)
    assert qconfig_checks.on_device_of(qconfig, nn.Linear(1, 1)) == qconfig
    assert qconfig_checks.on_device_of(None, nn.Linear(1, 1)) is None
    assert qconfig_checks.on_device_of(qconfig, None) is qconfig
    assert qconfig_checks.on_device_of(("other",), nn.Linear(1, 1)) == ("other",)


def test_factories_in_factories() -> None:
    def make(**kwargs: object) -> object:
        return qfx.FakeQuantize.with_args(observer=qfx.MinMaxObserver.with_args(**kwargs), quant_min=0)

    assert factories_equal(make(eps=1.0), make(eps=1.0))
    assert not factories_equal(make(eps=1.0), make(eps=2.0))
    assert not factories_equal(make(), qfx.FakeQuantize.with_args(observer=qfx.MinMaxObserver, quant_min=0))
    assert not factories_equal(make(), qfx.MinMaxObserver)


def test_the_old_pair() -> None:
    pair = qfx.QConfigDynamic(weight=qfx.default_weight_observer)
    assert pair.activation is nn.Identity
    assert pair._fields == ("activation", "weight")
    assert copy.deepcopy(qfx.QConfigDynamic()) == qfx.QConfigDynamic()
    assert pickle.loads(pickle.dumps(qfx.QConfigDynamic())) == qfx.QConfigDynamic()
    with pytest.raises(ConfigError, match=r"received observer instance, .* MinMaxObserver or"):
        qfx.QConfigDynamic(weight=qfx.MinMaxObserver())


@pytest.mark.parametrize("is_qat", [False, True])
def test_a_mapping_with_another_default(is_qat: bool) -> None:
    mine = qfx.QConfig(qfx.default_observer, qfx.default_weight_observer)
    mapping = mapping_with_default(is_qat, "qnnpack", mine)
    assert mapping.global_qconfig is mine
    assert mapping.object_type_qconfigs[nn.ConvTranspose2d] is mine
    assert mapping.object_type_qconfigs["reshape"] is mine
    assert mapping.object_type_qconfigs[torch.sigmoid] is not mine


def test_private_names() -> None:
    assert all(hasattr(private_names, name) for name in private_names.__all__)
    assert list(vars(qfx.QConfigMapping())) == private_names._QCONFIG_STYLE_ORDER
    assert qfx.activation_dtype(private_names._default_quint8_placeholder_qconfig) is torch.quint8
    assert qfx.weight_dtype(private_names._default_fp32_placeholder_qconfig) is torch.float32
