"""Fuser methods of a user's BackendConfig, in both formats of patterns."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qfx
from qfx import BackendConfig, BackendPatternConfig, MatchAllNode
from qfx.errors import ConfigError, RuleError
from qfx.nn import intrinsic
from qfx.nn.errors import FusionError

ADDITIONS: list[Callable[..., Any]] = [torch.add, operator.add]


class Residual(nn.Module):
    """``relu(bn(conv(x)) + maxpool(x))``, the sum in either order."""

    def __init__(self, add: Callable[..., Any] = torch.add, *, swapped: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.relu = nn.ReLU()
        self.add, self.swapped = add, swapped

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(x)
        x = self.bn(self.conv(x))
        return self.relu(self.add(y, x) if self.swapped else self.add(x, y))  # type: ignore[no-any-return]


class Fused(nn.Module):
    """Remembers what a fuser method was given."""

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])
        self.others = [part for part in parts if not isinstance(part, nn.Module)]

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        return x


def residual(add: Any, *, side: int, norm: bool) -> BackendPatternConfig:
    conv: Any = (nn.BatchNorm2d, nn.Conv2d) if norm else nn.Conv2d
    inputs = (conv, MatchAllNode) if side == 0 else (MatchAllNode, conv)
    return BackendPatternConfig()._set_pattern_complex_format((nn.ReLU, (add, *inputs)))


def conv_of(matched: Any, side: int = 0) -> Any:
    found = matched[1][1 + side]
    return found[1] if isinstance(found, tuple) else found


def targets(gm: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in gm.graph.nodes if node.op.startswith("call")]


@pytest.mark.parametrize("add", ADDITIONS)
@pytest.mark.parametrize("swapped", [False, True])
def test_what_matches_anything_is_an_input_of_the_fused_module(add: Any, swapped: bool) -> None:
    given = []

    def fuse(is_qat: bool, relu: Any, addition: Any) -> nn.Module:
        given.append((is_qat, relu, addition))
        return Fused(conv_of((relu, addition)))

    config = (
        residual(add, side=0, norm=True)
        .set_fuser_method(fuse)
        ._set_root_node_getter(conv_of)
        ._set_extra_inputs_getter(lambda matched: [matched[1][2]])
    )
    model = Residual(add, swapped=swapped).eval()
    gm = qfx.fuse_fx(model, backend_config=BackendConfig("mine").set_backend_pattern_config(config))
    assert targets(gm) == ["pool", "conv"]
    node = next(node for node in gm.graph.nodes if node.target == "conv")
    assert [str(arg) for arg in node.args] == ["x", "pool"]
    ((is_qat, relu, (function, (bn, conv), anything)),) = given
    assert is_qat is False
    assert [type(each) for each in (relu, bn, conv)] == [nn.ReLU, nn.BatchNorm2d, nn.Conv2d]
    assert function is add
    assert anything is MatchAllNode
    assert not hasattr(gm, "relu")
    assert not hasattr(gm, "bn")
    assert type(model.conv) is nn.Conv2d  # the user's model is as it was


def test_without_getters_the_first_operator_is_the_root() -> None:
    config = residual(torch.add, side=1, norm=True).set_fuser_method(lambda _, relu, addition: addition[2][1])
    gm = qfx.fuse_fx(Residual(swapped=True).eval(), backend_config=BackendConfig().set_backend_pattern_config(config))
    assert targets(gm) == ["conv"]  # nothing asks for the extra input, so nothing computes it
    assert type(gm.conv) is nn.Conv2d


def test_the_root_must_be_an_operator() -> None:
    config = residual(torch.add, side=0, norm=True).set_fuser_method(lambda *_: nn.Identity())
    with pytest.raises(ConfigError, match="give the config a root_node_getter"):
        qfx.fuse_fx(Residual().eval(), backend_config=BackendConfig().set_backend_pattern_config(config))


@pytest.mark.parametrize("relu", [nn.ReLU, F.relu, torch.relu, "relu"])
def test_modules_in_the_order_of_calls(relu: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn(self.conv(x))
            if isinstance(relu, type):
                return self.act(y)  # type: ignore[no-any-return]
            return y.relu() if isinstance(relu, str) else relu(y)  # type: ignore[no-any-return]

    config = BackendPatternConfig((nn.Conv2d, nn.BatchNorm2d, relu)).set_fuser_method(lambda _, *parts: Fused(*parts))
    gm = qfx.fuse_fx(Net().eval(), backend_config=BackendConfig().set_backend_pattern_config(config))
    assert targets(gm) == ["conv"]
    assert [type(part) for part in gm.conv.parts] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]  # type: ignore[union-attr]
    assert not any(part.training for part in gm.conv.parts)  # type: ignore[union-attr]


def test_a_nested_pattern_gives_nested_modules() -> None:
    given: list[Any] = []

    def fuser(is_qat: bool, inner: Any, act: nn.Module) -> nn.Module:
        given.extend((is_qat, *map(type, inner), type(act)))
        return Fused(inner[1], inner[0], act)

    config = BackendPatternConfig(((nn.BatchNorm2d, nn.Conv2d), nn.SiLU)).set_fuser_method(fuser)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.SiLU()).eval()
    gm = qfx.fuse_fx(model, backend_config=BackendConfig().set_backend_pattern_config(config))
    assert given == [False, nn.BatchNorm2d, nn.Conv2d, nn.SiLU]
    assert targets(gm) == ["0"]


def test_an_own_class_and_an_own_function() -> None:
    class Scale(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    config = BackendPatternConfig((nn.Linear, Scale, torch.erf)).set_fuser_method(lambda _, *parts: Fused(*parts))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(2, 2), Scale()

        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(self.scale(self.linear(x)))

    custom = qfx.PrepareCustomConfig().set_non_traceable_module_classes([Scale])
    backend = BackendConfig().set_backend_pattern_config(config)
    mapping = qfx.get_default_qconfig_mapping()
    gm = qfx.prepare_fx(Net().eval(), mapping, (torch.zeros(1, 2),), custom, backend_config=backend)
    assert targets(gm) == ["linear"]
    fused: Any = gm.linear
    assert [type(part) for part in fused.parts] == [nn.Linear, Scale]
    assert fused.others == [torch.erf]


def test_the_longer_pattern_wins_and_the_mapping_of_the_root_holds() -> None:
    backend = BackendConfig().set_backend_pattern_configs(
        [
            BackendPatternConfig((nn.BatchNorm2d, nn.ReLU)).set_fuser_method(lambda _, *parts: Fused(*parts)),
            BackendPatternConfig((nn.Conv2d, nn.BatchNorm2d, nn.ReLU)).set_fuser_method(
                qfx.nn.intrinsic.fusers.fuse_conv_bn_relu
            ),
            BackendPatternConfig(intrinsic.ConvReLU2d).add_dtype_config(
                qfx.DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float)
            ),
        ]
    )
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).eval()
    assert type(qfx.fuse_fx(model, backend_config=backend).get_submodule("0")) is intrinsic.ConvReLU2d
    mapping = qfx.QConfigMapping().set_global(qfx.default_qconfig).set_object_type(nn.Conv2d, None)
    prepared = qfx.prepare_fx(model, mapping, (torch.zeros(1, 3, 2, 2),), backend_config=backend)
    assert prepared.plan["instances"] == {}
    assert list(prepared.plan["float"].values()) == ["the config leaves it float (object_type torch.nn.Conv2d)"]


def test_a_config_in_a_dictionary() -> None:
    config = residual(torch.add, side=0, norm=True).set_fuser_method(lambda _, relu, addition: Fused(relu))
    config._set_root_node_getter(conv_of)
    backend = BackendConfig().set_backend_pattern_config(config).to_dict()
    assert type(qfx.fuse_fx(Residual().eval(), backend_config=backend).conv) is Fused


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(torch.relu(self.linear(x))))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.relu(y) + y


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(F.linear(x, self.weight))


@pytest.mark.parametrize(
    ("model", "root", "reason"),
    [
        (Shared(), nn.Linear, "module linear is called 2 times"),
        (Twice(), nn.Linear, "linear is also used by add"),
        (Functional(), F.linear, "linear is a function, and fuser methods take modules"),
    ],
)
def test_left_alone(model: nn.Module, root: Any, reason: str) -> None:
    from qfx.passes.fuse.backend import backend_fusions
    from qfx.passes.pipeline import Pass

    config = BackendPatternConfig((root, F.relu)).set_fuser_method(lambda *_: nn.Identity())
    backend = BackendConfig().set_backend_pattern_config(config)
    gm = torch.fx.symbolic_trace(model.eval())
    sweep = Pass("fuse", backend_fusions(backend), keep_misses=True)
    from qfx.passes.pipeline import Context

    log = sweep.run(gm, Context.of(gm))
    assert not log.changed
    assert any(reason in miss for entry in log.rules.values() for miss in entry.misses.values())


def test_batch_statistics_are_not_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU()).eval()
    gm = qfx.fuse_fx(model, backend_config=qfx.get_onednn_backend_config())
    assert targets(gm) == ["0", "1", "2"]


def test_errors_of_fuser_methods() -> None:
    def backend(fuser: Any) -> BackendConfig:
        return BackendConfig().set_backend_pattern_config(
            BackendPatternConfig((nn.Linear, nn.ReLU)).set_fuser_method(fuser)
        )

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    with pytest.raises(ConfigError, match=r"the fuser method of torch\.nn\.Linear > torch\.nn\.ReLU returned 3"):
        qfx.fuse_fx(model, backend_config=backend(lambda *_: 3))

    def refuses(*_: Any) -> nn.Module:
        raise FusionError("not these")

    with pytest.raises(FusionError, match="not these"):
        qfx.fuse_fx(model, backend_config=backend(refuses))
    with pytest.raises(RuleError, match="fuse_backend_pattern"):
        qfx.fuse_fx(model, backend_config=backend(lambda linear, relu: linear))


def test_the_default_backend_has_no_rules_of_this_kind() -> None:
    from qfx.passes.fuse.backend import backend_fusions

    assert backend_fusions(None) == ()
    for make in (qfx.get_native_backend_config, qfx.get_x86_backend_config, qfx.get_executorch_backend_config):
        assert backend_fusions(make()) == ()
        assert backend_fusions(make(), is_qat=True) == ()


@pytest.mark.parametrize("add", ADDITIONS)
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_additions_of_onednn(add: Any, swapped: bool, norm: bool) -> None:
    model, x = Residual(add, swapped=swapped, norm=norm).eval(), torch.randn(1, 3, 5, 5)
    gm = qfx.fuse_fx(model, backend_config=qfx.get_onednn_backend_config())
    assert type(gm.conv) is intrinsic.ConvAddReLU2d
    assert targets(gm) == ["pool", "conv"]
    torch.testing.assert_close(gm(x), model(x))


@pytest.mark.parametrize(
    ("after", "into"), [(nn.LeakyReLU(0.2), intrinsic.LinearLeakyReLU), (nn.Tanh(), intrinsic.LinearTanh)]
)
@pytest.mark.parametrize("as_function", [False, True])
def test_the_linear_layers_of_onednn(after: nn.Module, into: type[nn.Module], as_function: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.after = nn.Linear(3, 3), after

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            if not as_function:
                return self.after(y)  # type: ignore[no-any-return]
            return torch.tanh(y) if isinstance(after, nn.Tanh) else F.leaky_relu(y, 0.2)

    model, x = Net().eval(), torch.randn(2, 3)
    gm = qfx.fuse_fx(model, backend_config=qfx.get_onednn_backend_config())
    assert type(gm.linear) is into
    torch.testing.assert_close(gm(x), model(x))


@pytest.mark.parametrize(("shape", "fuses"), [((4, 8), True), ((4, 8, 8), False)])
def test_a_fuser_of_linear_and_batch_norm_runs_in_two_dimensions_only(shape: tuple[int, ...], fuses: bool) -> None:
    config = BackendPatternConfig((nn.Linear, nn.BatchNorm1d)).set_fuser_method(lambda is_qat, fc, bn: Fused(fc, bn))
    backend = BackendConfig("own").set_backend_pattern_config(config)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    fused = qfx.fuse_fx(model, backend_config=backend, example_inputs=(torch.randn(shape),))
    assert [type(module) for module in fused.children()] == ([Fused] if fuses else [nn.Linear, nn.BatchNorm1d])


def test_where_nobody_told_the_axes_the_layer_of_onednn_asks() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.LeakyReLU()).eval()
    nn.init.uniform_(model[1].running_mean, -1, 1)
    fused = qfx.fuse_fx(model, backend_config=qfx.get_onednn_backend_config())
    assert [type(module) for module in fused.children()] == [intrinsic.LinearLeakyReLU]
    x = torch.randn(4, 8)
    torch.testing.assert_close(fused(x), model(x))
    with pytest.raises(AssertionError, match="give fuse_fx the example_inputs"):
        fused(torch.randn(4, 8, 8))
