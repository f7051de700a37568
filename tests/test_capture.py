from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import PrepareCustomConfig, convert_fx, get_default_qconfig_mapping, prepare_fx
from qfx.capture import capture
from qfx.errors import CaptureError, ConfigError, ModelStateError
from qfx.graph.provenance import origins


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line an error must name
            return self.inner(x)
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branching = Branching()
        self.last = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.branching(x)) + 1


def test_the_model_is_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()
    gm = capture(model)
    gm.get_submodule("0").weight.data.zero_()
    assert model[0].weight.abs().sum() > 0
    assert gm.get_submodule("0") is not model[0]


def test_nodes_know_their_source_line() -> None:
    model = Outer().eval()
    gm = capture(model, skipped_names=["branching"])
    add = next(n for n in gm.graph.nodes if n.name == "add")
    assert origins(add)[0].line.startswith(__file__)
    assert f'File "{__file__}", line ' in add.stack_trace
    last = next(n for n in gm.graph.nodes if n.name == "last")
    assert origins(last)[0].module_path == "last"


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(3),
        nn.Dropout(0.1),
        nn.AlphaDropout(0.1),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.RReLU(),
        nn.LSTM(3, 3, 2, dropout=0.5),
        nn.GRU(3, 3, 2, dropout=0.5),
        nn.TransformerEncoderLayer(4, 2, 8),
    ],
)
def test_training_mode_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelStateError, match=r"training mode: 0.* would still .* Call model.eval\(\)"):
        capture(nn.Sequential(layer))
    assert capture(nn.Sequential(layer).eval()) is not None


@pytest.mark.parametrize(
    "layer",
    [nn.InstanceNorm2d(3), nn.LSTM(3, 3, 2), nn.Dropout(0.0), nn.BatchNorm2d(3, track_running_stats=False).eval()],
)
def test_a_layer_that_computes_the_same_in_both_modes_is_taken(layer: nn.Module) -> None:
    assert capture(nn.Sequential(layer)) is not None


def test_attention_that_drops_is_refused() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, dropout=0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x, x, x)[0]

    with pytest.raises(ModelStateError, match="inner would still"):
        capture(Attention())
    assert capture(Attention().eval()) is not None


class Calls(nn.Module):
    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function, self.w = function, nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


TRAINING = {
    "dropout by default": lambda m, x: F.dropout(x, 0.5),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "dropout1d": lambda m, x: F.dropout1d(x, 0.5, m.training),
    "alpha_dropout": lambda m, x: F.alpha_dropout(x, 0.5, m.training),
    "torch.dropout": lambda m, x: torch.dropout(x, 0.5, m.training),
    "torch.feature_dropout_": lambda m, x: torch.feature_dropout_(x, p=0.5, train=m.training),
    "rrelu": lambda m, x: F.rrelu(x, training=m.training),
    "torch.rrelu": lambda m, x: torch.rrelu(x, 0.1, 0.3, m.training),
    "batch_norm": lambda m, x: F.batch_norm(x, m.w, m.w, training=m.training),
    "instance_norm": lambda m, x: F.instance_norm(x, m.w, m.w, use_input_stats=m.training),
    "attention": lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1 * m.training),
}


@pytest.mark.parametrize("name", TRAINING)
def test_a_call_that_trains_is_refused(name: str) -> None:
    with pytest.raises(ModelStateError, match=r"test_capture.py:\d+\) would still .*set_non_traceable_module_names"):
        capture(Calls(TRAINING[name]))
    if name != "dropout by default":
        assert capture(Calls(TRAINING[name]).eval()) is not None
    with pytest.raises(ModelStateError, match="would still"):
        capture(torch.fx.symbolic_trace(Calls(TRAINING[name])))
    assert capture(Calls(TRAINING[name]), inference=False) is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.dropout(x, 0.0),
        lambda m, x: F.batch_norm(x, None, None, training=True),
        lambda m, x: F.instance_norm(x),
        lambda m, x: F.alpha_dropout(x, 0.5),
    ],
)
def test_a_call_that_computes_the_same_in_both_modes_is_taken(
    function: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    assert capture(Calls(function)) is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.dropout(x),
        lambda m, x: F.dropout(x, 0.5, True),
        lambda m, x: F.dropout2d(input=x, p=0.5),
        lambda m, x: F.dropout(x, 0.5, True, False),
    ],
)
def test_dropout_that_says_it_trains_in_evaluation_is_switched_off(
    function: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    x = torch.ones(1, 4, 4, 4)
    with pytest.warns(UserWarning, match=r"test_capture.py:\d+\) would drop values in evaluation mode, too"):
        gm = capture(Calls(function).eval())
    assert torch.equal(gm(x), x)


class MonteCarlo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, training=True)


@pytest.mark.parametrize("dropout", [MonteCarlo(), nn.Sequential(nn.Dropout(0.5)), nn.Dropout(0.5)])
def test_what_is_kept_whole_stays_random(dropout: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), dropout)
    model[0].eval()
    x = torch.randn(4, 4)
    custom = PrepareCustomConfig().set_non_traceable_module_names(["1"])
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,), custom)
    prepared(x)
    gm = convert_fx(prepared)
    assert not torch.equal(gm(x), gm(x))
    with pytest.raises(ModelStateError, match="set_non_traceable_module_names"):
        prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))


def test_an_untraceable_model_says_where_and_what_to_do() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Outer().eval())
    message = str(caught.value)
    branch = next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "if x.sum() > 0" in line)
    assert f"{__file__}:{branch}" in message
    assert "set_non_traceable_module_names" in message


def test_untraceable_parts_can_stay_whole() -> None:
    for how in ({"skipped_names": ["branching"]}, {"skipped_classes": [Branching]}):
        model = Outer().eval()
        gm = capture(model, **how)
        x = torch.randn(3, 2)
        torch.testing.assert_close(gm(x), model(x))
        assert any(n.op == "call_module" and n.target == "branching" for n in gm.graph.nodes)


def test_annotations_nobody_evaluated_are_dropped() -> None:
    class Annotated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # strings, in a module that postpones annotations
            return x + 1

    assert isinstance(Annotated.forward.__annotations__["x"], str)
    assert {node.type for node in capture(Annotated()).graph.nodes} == {None}


class Deep(nn.Module):
    """A submodule that cannot be traced, two levels down."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.blk = nn.Sequential(nn.Linear(2, 2), part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blk(x)


class MakesALayer(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.Linear(2, 2)(x)


class Forgiving(nn.Module):
    """Catches what its part raises, then fails itself."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Branching()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.part(x)
        except torch.fx.proxy.TraceError:
            return x if bool(x.sum() > 0) else -x


X = torch.randn(3, 2)
PREPARE_ADVICE = r"PrepareCustomConfig\(\).set_non_traceable_module_names\(\['blk.1'\]\)"
FUSE_ADVICE = r"Keep that submodule whole: trace with a torch.fx.Tracer whose is_leaf_module says so of 'blk.1'"


@pytest.mark.parametrize("part", [Branching(), MakesALayer()])
def test_the_submodule_is_named_with_the_way_out(part: nn.Module) -> None:
    model = Deep(part).eval()
    with pytest.raises(CaptureError, match=rf"in submodule 'blk.1'\).*{PREPARE_ADVICE}"):
        qfx.prepare_fx(model, qfx.QConfigMapping(), (X,))
    with pytest.raises(CaptureError, match=rf"in submodule 'blk.1'\).*{FUSE_ADVICE}") as caught:
        qfx.fuse_fx(model)
    assert "Custom" not in str(caught.value)
    custom = qfx.PrepareCustomConfig().set_non_traceable_module_names(["blk.1"])  # which is what it says
    assert qfx.prepare_fx(model, qfx.QConfigMapping(), (X,), custom)(X).shape == (3, 2)

    class Whole(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return module_qualified_name == "blk.1" or super().is_leaf_module(m, module_qualified_name)

    assert qfx.fuse_fx(torch.fx.GraphModule(model, Whole().trace(model)))(X).shape == (3, 2)


def test_an_error_of_the_models_own_forward_names_no_submodule() -> None:
    for model in (Branching(), Forgiving()):
        with pytest.raises(CaptureError, match="Move that part into a submodule and keep it whole") as caught:
            capture(model.eval())
        assert "in submodule" not in str(caught.value)


class Fails(nn.Module):
    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error("on purpose")


@pytest.mark.parametrize("error", [NameError, ZeroDivisionError, NotImplementedError, StopIteration])
def test_whatever_a_forward_raises_is_explained(error: type[Exception]) -> None:
    with pytest.raises(CaptureError, match=r"on purpose \(.*test_capture.py:\d+, in submodule '0'\)") as caught:
        capture(nn.Sequential(Fails(error)))
    assert isinstance(caught.value.__cause__, error)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the whole of TorchScript
        return torch.jit.script(nn.Linear(2, 2))


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(2, 2), X)


def compiled_in_place() -> nn.Module:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    model[0].compile(backend="eager")
    return model


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "function": (lambda: torch.relu, ConfigError, "got builtin.*; wrap it in a module whose forward calls it"),
    "lambda": (lambda: lambda x: x, ConfigError, "got function; wrap it in a module whose forward calls it"),
    "class": (lambda: nn.Linear, ConfigError, "got the class Linear; make one and pass it"),
    "nothing": (lambda: None, ConfigError, "a model is a torch.nn.Module, got NoneType$"),
    "program": (
        lambda: torch.export.export(nn.Linear(2, 2), (X,)),
        ConfigError,
        r"ExportedProgram; pass its module\(\)",
    ),
    "scripted": (
        scripted,
        CaptureError,
        "TorchScript and has no Python code to trace; use the module it was made from",
    ),
    "traced": (traced, CaptureError, "this TopLevelTracedModule is TorchScript"),
    "compiled": (
        lambda: torch.compile(nn.Linear(2, 2), backend="eager"),
        CaptureError,
        r"compiled; use .* \(its _orig_",
    ),
    "part compiled": (
        lambda: Deep(torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager")),
        CaptureError,
        "its submodule 'blk.1', a OptimizedModule, is compiled",
    ),
    "in place": (compiled_in_place, CaptureError, "its submodule '0', a Sequential, was compiled in place"),
    "parallel": (lambda: nn.DataParallel(nn.Linear(2, 2)), CaptureError, r"use the model itself \(its .module\)"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), ModelStateError, "0.weight .* run the model once on an input"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_of_the_wrong_kind_are_refused_in_words(kind: str) -> None:
    make, error, words = REFUSED[kind]
    model = make()
    for door in (lambda: qfx.prepare_fx(model, qfx.QConfigMapping(), (X,)), lambda: qfx.fuse_fx(model)):  # type: ignore[arg-type]
        with pytest.raises(error, match=words):
            door()


def test_a_script_inside_a_model_stays_whole() -> None:
    model = nn.Sequential(scripted(), nn.Linear(2, 2)).eval()
    gm = capture(model)
    assert [node.target for node in gm.graph.find_nodes(op="call_module")] == ["0", "1"]
    torch.testing.assert_close(gm(X), model(X))


def test_a_compiled_form_of_a_layer_is_not_taken_along() -> None:
    """It computes with the parameters of the module it was compiled from, whatever becomes of the copy's."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()
    model[1].running_mean.normal_()
    x = torch.randn(1, 2, 4, 4)
    expected = model(x)
    model[0].compile(backend="eager")
    torch.testing.assert_close(qfx.fuse_fx(model)(x), expected)
    assert model[0]._compiled_call_impl is not None
