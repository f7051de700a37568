from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from qfx import config
from qfx.config import QConfig, default_qconfigs, observer_facts, qconfig_equals, reuses_input
from qfx.errors import ConfigError
from qfx.fake_quantize import FakeQuantizeBase, FusedMovingAvgObsFakeQuantize
from qfx.observers import (
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
    default_fixed_qparams_range_neg1to1_observer,
    default_observer,
    default_weight_observer,
)


@pytest.mark.parametrize("role", ["activation", "weight"])
def test_an_observer_instead_of_a_factory_is_refused(role: str) -> None:
    given = {"activation": MinMaxObserver, "weight": MinMaxObserver} | {role: MinMaxObserver()}
    with pytest.raises(ConfigError, match=rf"received observer instance, .*with_args\(\.\.\.\) as {role}"):
        QConfig(**given)


def test_is_a_named_tuple() -> None:
    qconfig = QConfig(activation=MinMaxObserver, weight=None)
    activation, weight = qconfig
    assert (activation, weight) == (MinMaxObserver, None)
    assert qconfig == QConfig(MinMaxObserver, None)
    assert hash(qconfig) == hash(QConfig(MinMaxObserver, None))
    assert repr(QConfig(None, None)) == "QConfig(activation=None, weight=None)"


def test_survives_copy_and_pickle() -> None:
    qconfig = config.get_default_qconfig("x86")
    for copied in (copy.deepcopy(qconfig), pickle.loads(pickle.dumps(qconfig))):
        assert type(copied) is QConfig
        assert qconfig_equals(copied, qconfig)


def narrow() -> object:
    return MinMaxObserver.with_args(quant_min=0, quant_max=127)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (narrow(), narrow(), True),
        (narrow(), default_observer.with_args(), True),
        (narrow(), MinMaxObserver.with_args(quant_min=0, quant_max=126), False),
        (narrow(), HistogramObserver.with_args(quant_min=0, quant_max=127), False),
        (MinMaxObserver, MinMaxObserver, True),
        (MinMaxObserver, HistogramObserver, False),
        (MinMaxObserver, MinMaxObserver.with_args(), False),
        (functools.partial(MinMaxObserver, eps=1.0), functools.partial(MinMaxObserver, eps=1.0), True),
        (MinMaxObserver.with_args(), MinMaxObserver.with_args().with_callable_args(factory_kwargs=dict), True),
        (None, None, True),
        (None, MinMaxObserver, False),
    ],
)
def test_equal_when_they_make_the_same(a: object, b: object, equal: bool) -> None:
    assert qconfig_equals(QConfig(a, None), QConfig(b, None)) is equal
    assert qconfig_equals(QConfig(None, b), QConfig(None, a)) is equal


def test_none_equals_only_none() -> None:
    assert qconfig_equals(None, None)
    assert not qconfig_equals(None, config.default_qconfig)
    assert not qconfig_equals(config.default_qconfig, None)


def test_reuses_input() -> None:
    assert reuses_input(config.default_reuse_input_qconfig)
    assert reuses_input(QConfig(ReuseInputObserver.with_args(), None))
    assert not reuses_input(config.default_qconfig)
    assert not reuses_input(QConfig(None, None))
    assert not reuses_input(None)


BACKENDS = {
    "x86": (127, torch.per_channel_symmetric),
    "fbgemm": (127, torch.per_channel_symmetric),
    "qnnpack": (255, torch.per_tensor_symmetric),
    "onednn": (255, torch.per_channel_symmetric),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_of_backends(backend: str) -> None:
    highest, qscheme = BACKENDS[backend]
    qconfig = config.get_default_qconfig(backend)
    activation, weight = qconfig.activation(), qconfig.weight()
    assert type(activation) is HistogramObserver
    assert (activation.dtype, activation.quant_min, activation.quant_max) == (torch.quint8, 0, highest)
    assert (weight.dtype, weight.qscheme, weight.quant_min, weight.quant_max) == (torch.qint8, qscheme, -128, 127)


def test_default_is_x86() -> None:
    assert qconfig_equals(config.get_default_qconfig(), config.get_default_qconfig("x86", 0))


def test_an_unknown_backend_or_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tpu not supported\. backend must be one of fbgemm, x86, qnnpack, onednn"):
        config.get_default_qconfig("tpu")
    with pytest.raises(ConfigError, match=r"1 in get_default_qconfig is not supported\. Version number must be 0"):
        config.get_default_qconfig("x86", 1)
    with pytest.raises(ConfigError, match="backend: tpu"):
        config.get_default_qconfig_mapping("tpu")
    with pytest.raises(ConfigError, match="Version number: 7"):
        config.get_default_qconfig_mapping("x86", 7)


def test_named_static_defaults() -> None:
    facts = {
        name: (observer_facts(getattr(config, name).activation), observer_facts(getattr(config, name).weight))
        for name in vars(default_qconfigs)
        if name.endswith("_qconfig") and name.startswith(("default", "float16"))
    }
    assert {name: (a.kind, a.dtype, w.kind, w.dtype) for name, (a, w) in facts.items()} == {
        "default_qconfig": ("MinMaxObserver", torch.quint8, "MinMaxObserver", torch.qint8),
        "default_per_channel_qconfig": ("MinMaxObserver", torch.quint8, "PerChannelMinMaxObserver", torch.qint8),
        "default_debug_qconfig": ("RecordingObserver", torch.quint8, "MinMaxObserver", torch.qint8),
        "default_reuse_input_qconfig": ("ReuseInputObserver", torch.quint8, "NoopObserver", torch.float16),
        "default_quint8_weight_qconfig": ("HistogramObserver", torch.quint8, "MinMaxObserver", torch.quint8),
        "float16_static_qconfig": ("PlaceholderObserver", torch.float16, "PlaceholderObserver", torch.float16),
        "default_symmetric_qnnpack_qconfig": ("HistogramObserver", torch.qint8, "MinMaxObserver", torch.qint8),
        "default_per_channel_symmetric_qnnpack_qconfig": (
            "HistogramObserver",
            torch.qint8,
            "PerChannelMinMaxObserver",
            torch.qint8,
        ),
    }
    assert RecordingObserver is config.default_debug_qconfig.activation
    activation, weight = facts["default_symmetric_qnnpack_qconfig"]
    assert (activation.eps, weight.eps, weight.quant_min, weight.quant_max) == (2**-12, 2**-12, -127, 127)


def test_observer_facts() -> None:
    weight = observer_facts(PerChannelMinMaxObserver.with_args(dtype=torch.qint8, ch_axis=1))
    assert (weight.ch_axis, weight.qscheme, weight.is_dynamic) == (1, torch.per_channel_affine, False)
    assert (weight.scale, weight.zero_point) == (None, None)
    fixed = observer_facts(default_fixed_qparams_range_neg1to1_observer)
    assert (fixed.scale, fixed.zero_point, fixed.quant_max) == (2 / 256, 128, 255)
    dynamic = observer_facts(PlaceholderObserver.with_args(dtype=torch.quint8, is_dynamic=True))
    assert dynamic.is_dynamic
    assert observer_facts(None).dtype is None
    assert observer_facts(nn.Identity).dtype is torch.float32


def test_observer_facts_calls_the_factory_once() -> None:
    calls = []

    def factory() -> MinMaxObserver:
        calls.append(1)
        return MinMaxObserver()

    assert observer_facts(factory) is observer_facts(factory)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (123, "observer classes or factories, got 123"),
        (nn.Linear, "torch.nn.Linear cannot be called without arguments"),
        (nn.ReLU, "makes a ReLU: without a dtype it is no observer"),
    ],
)
def test_observer_facts_of_no_observer(factory: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        observer_facts(factory)


def test_the_weight_observer_of_the_defaults_is_shared_by_name() -> None:
    assert config.default_qconfig.weight is default_weight_observer


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "qnnpack", "onednn"])
def test_configurations_for_training_make_fake_quantize_modules(backend: str) -> None:
    for version in (0, 1):
        qconfig = config.get_default_qat_qconfig(backend, version)
        for made in (qconfig.activation(), qconfig.weight()):
            assert isinstance(made, FakeQuantizeBase)
            assert isinstance(made, FusedMovingAvgObsFakeQuantize) == (version == 1)
    with pytest.raises(ConfigError, match=r"2 in get_default_qat_qconfig is not supported\. .* be 0 or 1"):
        config.get_default_qat_qconfig(backend, 2)
    with pytest.raises(ConfigError, match="backend: tpu not supported"):
        config.get_default_qat_qconfig_mapping("tpu")
