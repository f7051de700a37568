from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx.errors import ConfigError, ModelStateError


class Net(nn.Module):
    """Batch norms and dropouts no two of which are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3, eps=1e-2, momentum=0.3)
        self.second = nn.BatchNorm2d(3, affine=False)
        self.own = nn.BatchNorm2d(3, track_running_stats=False)
        self.drop, self.feature = nn.Dropout(0.25), nn.Dropout2d(0.5)
        self.inplace, self.alpha = nn.Dropout(0.75, inplace=True), nn.AlphaDropout(0.125)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.first(x))
        x = self.feature(self.second(x))
        return self.alpha(self.inplace(self.own(x) + 1))  # type: ignore[no-any-return]


P = [0.25, 0.5, 0.75, 0.125]


def exported(model: nn.Module, x: Tensor, *, training: bool, strict: bool = False) -> Any:
    return torch.export.export(model.train(training), (x,), strict=strict).module()


def flags(gm: torch.fx.GraphModule, kind: str) -> list[Any]:
    """The arguments of all calls of one kind, after their input and parameters."""
    first = 5 if kind == "batch_norm" else 1
    return [node.args[first:] for node in gm.graph.nodes if kind in node.name and node.op == "call_function"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("captured", [False, True])
def test_back_and_forth(captured: bool, strict: bool) -> None:
    model, x = Net(), torch.randn(4, 3, 5, 5)
    gm = exported(model, x, training=captured, strict=strict)
    eps = [(0.3, 1e-2), (0.1, 1e-5), (0.1, 1e-5)]
    for training in (False, True, True, False, True):
        move = qfx.move_exported_model_to_train if training else qfx.move_exported_model_to_eval
        assert move(gm) is gm
        assert flags(gm, "dropout") == [(p, training) for p in P]
        found = flags(gm, "batch_norm")
        # Without running statistics it normalizes by the batch in either mode.
        assert [call[0] for call in found] == [training, training, True]
        assert [call[1:3] for call in found] == eps
        assert all(module.training is training for module in gm.modules())


@pytest.mark.parametrize("captured", [False, True])
def test_evaluation_computes_what_the_module_does(captured: bool) -> None:
    model, x = Net(), torch.randn(4, 3, 5, 5)
    for _ in range(3):
        model.train()(x * 2 + 1)
    gm = qfx.move_exported_model_to_eval(exported(model, x, training=captured))
    before = copy.deepcopy(gm.state_dict())
    torch.testing.assert_close(gm(x), model.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in gm.state_dict().items())


@pytest.mark.parametrize("captured", [False, True])
def test_training_follows_the_batches_and_drops(captured: bool) -> None:
    model, x = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.25)), torch.randn(8, 3, 32, 32) + 2
    gm = qfx.move_exported_model_to_train(exported(model, x, training=captured))
    twin = copy.deepcopy(model).train()
    found = gm(x)
    twin(x)
    state = gm.state_dict()
    torch.testing.assert_close(state["0.running_mean"], twin[0].running_mean)
    torch.testing.assert_close(state["0.running_var"], twin[0].running_var)
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    # A capture in evaluation has no call that counts batches.
    assert int(state["0.num_batches_tracked"]) == int(captured)


def test_a_training_capture_counts_batches_in_training_only() -> None:
    model, x = nn.BatchNorm2d(3), torch.randn(4, 3, 2, 2)
    gm = exported(model, x, training=True)
    counted = []
    for move in (qfx.move_exported_model_to_eval, qfx.move_exported_model_to_train):
        move(gm)(x)
        counted.append(int(gm.state_dict()["num_batches_tracked"]))
    assert counted == [0, 1]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.drop(x) + 1, lambda x: self.drop(x) - 1, (x,))  # type: ignore[no-any-return]


def test_nested_graphs() -> None:
    x = torch.ones(8)
    gm = exported(Branches(), x, training=True)
    assert torch.equal(qfx.move_exported_model_to_eval(gm)(x), x + 1)
    assert torch.equal(gm(-x), -x - 1)
    nested = [flags(gm.get_submodule(name), "dropout") for name in ("true_graph_0", "false_graph_0")]
    assert nested == [[(0.4, False)], [(0.4, False)]]
    qfx.move_exported_model_to_train(gm)
    assert flags(gm.true_graph_0, "dropout") == [(0.4, True)]


class Attention(nn.Module):
    def forward(self, q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.3 if self.training else 0.0)


def test_attention_remembers_its_probability() -> None:
    gm = exported(Attention(), torch.randn(1, 2, 3, 4), training=True)

    def probability() -> Any:
        (node,) = [node for node in gm.graph.nodes if "attention" in node.name]
        return (*node.args[4:], *node.kwargs.values())[0]

    assert probability() == 0.3
    for _ in range(2):
        qfx.move_exported_model_to_eval(gm)
        assert probability() == 0.0
    qfx.move_exported_model_to_train(gm)
    assert probability() == 0.3


@pytest.mark.parametrize("captured", [False, True])
def test_other_modules_with_a_mode(captured: bool) -> None:
    model, x = nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True), nn.RReLU()), torch.randn(4, 3, 5)
    model.train()(x)
    gm = qfx.move_exported_model_to_eval(exported(model, x, training=captured))
    torch.testing.assert_close(gm(x), model.eval()(x))


def test_train_and_eval_of_the_model_itself() -> None:
    model, x = nn.Sequential(nn.Dropout(0.5)), torch.ones(64)
    gm = exported(model, x, training=True)
    with pytest.raises(NotImplementedError):
        gm.eval()
    assert qfx.allow_exported_model_train_eval(gm) is gm
    assert gm.eval() is gm
    assert torch.equal(gm(x), x)
    assert gm.train() is gm
    assert not torch.equal(gm(x), x)
    assert gm.train(False) is gm
    assert torch.equal(gm(x), x)
    assert gm.training is False


@pytest.mark.parametrize("captured", [False, True])
def test_decomposed_batch_norm_is_refused_whole(captured: bool) -> None:
    model, x = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3)), torch.randn(4, 3, 2, 2)
    gm = torch.export.export(model.train(captured), (x,)).run_decompositions().module()
    assert isinstance(gm, torch.fx.GraphModule)
    same, other = qfx.move_exported_model_to_train, qfx.move_exported_model_to_eval
    if not captured:
        same, other = other, same
    same(gm)
    before = gm.code
    with pytest.raises(ModelStateError, match=r"was decomposed for .*; switch what torch\.export gave before"):
        other(gm)
    assert gm.code == before


@pytest.mark.parametrize(
    "function",
    [qfx.move_exported_model_to_eval, qfx.move_exported_model_to_train, qfx.allow_exported_model_train_eval],
)
def test_other_things_are_refused(function: Any) -> None:
    program = torch.export.export(nn.ReLU(), (torch.ones(1),))
    for thing in (nn.Dropout(0.5), program):
        with pytest.raises(ConfigError, match=r"give it torch\.export\.export\(model, inputs\)\.module\(\)"):
            function(thing)
