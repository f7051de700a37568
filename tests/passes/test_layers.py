"""Layers with a weight: classes a backend config names, and where in a layer the weight is."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.errors import ConfigError
from qfx.nn import qat
from qfx.nn.quantized import reference

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
DTYPES = qfx.DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float)


class Pair(nn.Sequential):
    """A layer and its activation, under names of their own."""

    def __init__(self, linear: nn.Module, act: nn.Module) -> None:
        super().__init__(OrderedDict(linear=linear, act=act))


class Around(nn.Sequential):
    """A container between the fused one and the layer."""


class Fused(Pair):
    weight = property(lambda self: self.linear.weight)


class Trained(Pair):
    weight = property(lambda self: self.linear.weight)
    weight_fake_quant = property(lambda self: self.linear.weight_fake_quant)
    told: ClassVar[list[str]] = []

    @classmethod
    def from_float(cls, mod: Any) -> Trained:
        cls.told = [type(part).__name__ for part in mod.modules() if getattr(part, "qconfig", None) is not None]
        linear = next(part for part in mod.modules() if type(part) is nn.Linear)
        return cls(qat.Linear.from_float(linear), mod.act)

    def to_float(self) -> Fused:
        return Fused(self.linear.to_float(), self.act)  # type: ignore[operator, union-attr]


class Converted(Pair):
    @classmethod
    def from_float(cls, mod: Any, weight_qparams: dict[str, Any]) -> Converted:
        return cls(reference.Linear.from_float(mod.linear, weight_qparams), mod.act)


class TrainedTable(nn.Embedding):
    """A table that trains with weights rounded by any scheme."""

    @classmethod
    def from_float(cls, mod: Any) -> TrainedTable:
        made = cls(mod.num_embeddings, mod.embedding_dim)
        made.weight, made.weight_fake_quant = mod.weight, mod.qconfig.weight()
        return made

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.embedding(input, self.weight_fake_quant(self.weight))

    def to_float(self) -> nn.Embedding:
        return nn.Embedding(*self.weight.shape, _weight=self.weight.detach())


def config(pattern: Any) -> qfx.BackendPatternConfig:
    made = qfx.BackendPatternConfig(pattern).set_dtype_configs([DTYPES])
    return made.set_observation_type(qfx.ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT)


def backend(*configs: qfx.BackendPatternConfig, inside: type[nn.Module] | None = None) -> qfx.BackendConfig:
    def fuser(is_qat: bool, linear: nn.Module, act: nn.Module) -> nn.Module:
        return Fused(linear if inside is None else inside(linear), act)

    fusion = config((nn.Linear, nn.SiLU)).set_fuser_method(fuser).set_fused_module(Fused)
    return qfx.BackendConfig("mine").set_backend_pattern_configs([fusion, *configs])


OWN = config(Fused).set_root_module(Fused).set_qat_module(Trained).set_reference_quantized_module(Converted)
CALIBRATED = qfx.QConfigMapping().set_global(qfx.default_qconfig)
TRAINED = qfx.QConfigMapping().set_global(qfx.get_default_qat_qconfig("qnnpack"))


@pytest.mark.parametrize("convert", [qfx.convert_fx, qfx.convert_to_reference_fx])
@pytest.mark.parametrize("training", [False, True])
def test_the_reference_class_of_a_backend_config_is_taken(training: bool, convert: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.SiLU()).train(training)
    prepare, mapping = (qfx.prepare_qat_fx, TRAINED) if training else (qfx.prepare_fx, CALIBRATED)
    prepared: Any = prepare(model, mapping, (X,), backend_config=backend(OWN))
    prepared(X)
    assert type(prepared.get_submodule("0")) is (Trained if training else Fused)
    made = convert(prepared)
    layer = made.get_submodule("0")
    assert type(layer) is Converted
    assert type(layer.linear) is reference.Linear
    observer = mapping.global_qconfig.weight()  # type: ignore[union-attr]
    observer(model.get_parameter("0.weight").detach())
    if not training:
        assert torch.equal(layer.linear.weight_scale, observer.calculate_qparams()[0])
    with torch.no_grad():
        layer.linear.weight.zero_()  # its own, not the prepared model's
    assert prepared(X).abs().sum() > 0


def test_a_container_in_a_container_trains_and_all_parts_know_the_qconfig() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.SiLU()).train()
    nested = backend(config(Fused).set_root_module(nn.Linear).set_qat_module(Trained), inside=Around)
    prepared = qfx.prepare_qat_fx(model, TRAINED, (X,), backend_config=nested)
    assert type(prepared.get_submodule("0")) is Trained
    assert Trained.told == ["Fused", "Around", "Linear", "SiLU"]
    prepared(X)
    made = qfx.convert_to_reference_fx(prepared)
    assert [type(m) for m in made.modules() if isinstance(m, reference.Linear)] == [reference.Linear]
    torch.testing.assert_close(made(X), prepared(X).detach(), rtol=0, atol=0.02)


def test_the_layer_in_a_nested_container_is_quantized_after_training_or_without() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.SiLU()).eval()
    nested = backend(config(Fused).set_root_module(nn.Linear).set_qat_module(Trained), inside=Around)
    prepared = qfx.prepare_fx(model, CALIBRATED, (X,), backend_config=nested)
    prepared(X)
    made = qfx.convert_to_reference_fx(prepared)
    fused: Any = made.get_submodule("0")
    assert (type(fused), type(fused.linear), type(fused.linear[0])) == (Fused, Around, reference.Linear)
    assert type(prepared.get_submodule("0").linear[0]) is nn.Linear  # type: ignore[union-attr, index]


def test_a_class_without_a_quantized_form_is_named() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    own = qfx.BackendConfig("mine").set_backend_pattern_configs(
        [config(Strange).set_root_module(Strange).set_qat_module(Trained)]
    )
    tracer = qfx.PrepareCustomConfig().set_non_traceable_module_classes([Strange])
    prepared = qfx.prepare_fx(nn.Sequential(Strange()).eval(), CALIBRATED, (X,), tracer, backend_config=own)
    prepared(X)
    with pytest.raises(ConfigError, match="0, a Strange, has no quantized form; name its reference module"):
        qfx.convert_fx(prepared)


def test_a_table_that_is_not_observed_is_rounded_as_its_config_says() -> None:
    table = (
        qfx.BackendPatternConfig(nn.Embedding)
        .set_observation_type(qfx.ObservationType.INPUT_OUTPUT_NOT_OBSERVED)
        .set_dtype_configs([DTYPES])
        .set_root_module(nn.Embedding)
        .set_qat_module(TrainedTable)
        .set_reference_quantized_module(reference.Embedding)
    )
    own = qfx.BackendConfig("mine").set_backend_pattern_configs([table])
    rounded = qfx.FakeQuantize.with_args(
        observer=qfx.MovingAveragePerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )
    mapping = qfx.QConfigMapping().set_global(qfx.QConfig(qfx.default_fake_quant, rounded))

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 4)

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return self.words(i)  # type: ignore[no-any-return]

    words = torch.arange(10)
    prepared = qfx.prepare_qat_fx(Words().train(), mapping, (words,), backend_config=own)
    trained = prepared(words)
    made = qfx.convert_to_reference_fx(prepared)
    table_made: Any = made.words
    assert type(table_made) is reference.Embedding
    assert (table_made.weight_quant_min, table_made.weight_quant_max) == (-127, 127)
    assert torch.equal(made(words), trained.detach())


def test_a_weight_of_a_function_is_seen_once_more_at_conversion() -> None:
    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.w)

    mapping = qfx.QConfigMapping().set_global(qfx.QConfig(qfx.default_fake_quant, qfx.default_weight_fake_quant))
    prepared = qfx.prepare_qat_fx(Function().train(), mapping, (X,))
    prepared(X)
    with torch.no_grad():
        prepared.w.mul_(2)  # type: ignore[operator, union-attr]
    made = qfx.convert_to_reference_fx(prepared)
    weight = next(n for n in made.graph.nodes if n.target is torch.quantize_per_tensor and "w" in str(n.args[0]))
    seen = prepared.get_parameter("w").detach() / 2
    ends = [1.01 * float(end) for end in (seen.min(), seen.max())]  # an average with a constant of 0.01
    scale = float(made.get_buffer(str(weight.args[1])))
    assert scale == pytest.approx(max(-ends[0], ends[1]) / 127.5, rel=1e-6)
