from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.capture import capture
from qfx.passes.fuse.batch_norm import FOLD_BATCH_NORM


def randomized(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_()
    return model.eval()


def symbolic(model: nn.Module, x: torch.Tensor) -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(model)


def exported(model: nn.Module, x: torch.Tensor) -> torch.fx.GraphModule:
    return torch.export.export(model, (x,)).module()


CAPTURES = pytest.mark.parametrize("captured", [symbolic, exported])
Captured = Callable[[nn.Module, torch.Tensor], torch.fx.GraphModule]


def fold_count(gm: torch.fx.GraphModule) -> int:
    return gm.meta["qfx_logs"][0].rules["fold_batch_norm"].applied


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 4, 1, 1))
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(F.conv2d(x, self.w)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(self.conv(x)))


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.bn(y) + y


CASES = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()), (2, 4, 8, 8)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6)), (2, 4, 5, 5, 5)),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 4, 8, 8)),
    "no affine": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False)), (2, 4, 8, 8)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)), (2, 4, 5, 5)),
    "transposed grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, output_padding=1, stride=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6)), (5, 2, 2)),
    "functional": (Functional, (2, 4, 5, 5)),
}


@CAPTURES
@pytest.mark.parametrize("case", CASES)
def test_folds_and_computes_the_same(case: str, captured: Captured) -> None:
    make, shape = CASES[case]
    model, x = randomized(make()), torch.randn(shape)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 1
    assert "batch_norm" not in str(folded.graph)
    # Folding reorders float32 products; 2e-5 is a few units in the last place of sums over 36 terms.
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=2e-5)


@CAPTURES
def test_a_layer_called_twice_is_left_alone(captured: Captured) -> None:
    model, x = randomized(Twice()), torch.randn(2, 4, 5, 5)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "is read 2 times" in reason
    torch.testing.assert_close(folded(x), model(x))


@CAPTURES
def test_a_value_used_elsewhere_is_left_alone(captured: Captured) -> None:
    model, x = randomized(Branch()), torch.randn(2, 4, 5, 5)
    folded = qfx.rewrite(captured(model, x), FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "is also used by add, outside the match" in reason


def test_training_mode_is_left_alone() -> None:
    gm = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).train())
    folded = qfx.rewrite(gm, FOLD_BATCH_NORM)
    assert fold_count(folded) == 0
    (reason,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
    assert "training=True" in reason


def test_the_module_keeps_its_name_and_the_model_is_not_changed() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)))
    gm = torch.fx.symbolic_trace(model)
    folded = qfx.rewrite(gm, FOLD_BATCH_NORM)
    assert [n.target for n in folded.graph.nodes if n.op == "call_module"] == ["0"]
    assert isinstance(folded.get_submodule("0"), nn.Conv2d)
    assert folded.get_submodule("0").bias is not None
    assert model[0].bias is None
    assert dict(folded.named_children()).keys() == {"0"}


class Tokens(nn.Module):
    """Batch norm takes axis 1 of (batch, tokens, features)."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(8, features), nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.fc(x))


class TokensOfFunctions(Tokens):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.fc.weight, self.fc.bias)
        return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias)


@pytest.mark.parametrize("kind", [Tokens, TokensOfFunctions])
@pytest.mark.parametrize(
    ("sizes", "shape", "reason"),
    [
        ((6, 5), (4, 5, 8), "normalizes 5 channels, .* has 6 features"),
        ((5, 5), (4, 5, 8), "the input of .* has 3 axes; .* normalizes axis 1"),
        ((5, 5), (4, 8), None),
    ],
)
def test_a_linear_layer_takes_its_batch_norm_in_two_dimensions_only(
    kind: type[Tokens], sizes: tuple[int, int], shape: tuple[int, ...], reason: str | None
) -> None:
    model, x = randomized(kind(*sizes)), torch.randn(shape)
    folded = qfx.rewrite(capture(model, examples=(x,)), FOLD_BATCH_NORM)
    assert fold_count(folded) == (reason is None)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=2e-5)
    if reason is not None:
        (said,) = folded.meta["qfx_logs"][0].rules["fold_batch_norm"].misses.values()
        assert re.search(reason, said)
    for prepare, mode in ((qfx.prepare_fx, model), (qfx.prepare_qat_fx, model)):
        prepared = prepare(mode, qfx.get_default_qconfig_mapping("x86"), (x,))
        if prepare is qfx.prepare_fx:
            torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=2e-5)
        calls = [type(prepared.get_submodule(str(n.target))) for n in prepared.graph.nodes if n.op == "call_module"]
        assert (nn.BatchNorm1d in calls) is (reason is not None and kind is Tokens)
        prepared(x)
        int8 = qfx.convert_fx(prepared)
        assert float((int8(x) - model(x)).detach().abs().max()) < 0.3


@pytest.mark.parametrize("kind", [Tokens, TokensOfFunctions])
def test_without_examples_a_folded_linear_layer_refuses_what_it_was_not_folded_for(kind: type[Tokens]) -> None:
    model, x = randomized(kind(5, 5)), torch.randn(4, 8)
    fused = qfx.fuse_fx(model)
    assert {F.batch_norm, "bn"}.isdisjoint(node.target for node in fused.graph.nodes)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=2e-5)
    model(torch.randn(4, 5, 8))
    with pytest.raises(AssertionError, match="folded into one layer for inputs of two axes, batch and features"):
        fused(torch.randn(4, 5, 8))


def test_without_examples_other_channels_than_features_stay_apart() -> None:
    model, x = randomized(Tokens(6, 5)), torch.randn(4, 5, 8)
    fused = qfx.fuse_fx(model)
    assert [name for name, _ in fused.named_children()] == ["fc", "bn"]
    torch.testing.assert_close(fused(x), model(x))


def test_with_examples_a_folded_linear_layer_asks_nothing() -> None:
    model, x = randomized(Tokens(5, 5)), torch.randn(4, 8)
    fused = qfx.fuse_fx(model, example_inputs=(x,))
    assert [name for name, _ in fused.named_children()] == ["fc"]
    assert [node.op for node in fused.graph.nodes] == ["placeholder", "call_module", "output"]
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=2e-5)


def test_what_asks_for_its_input_is_quantized_all_the_same() -> None:
    model, x = randomized(Tokens(5, 5)), torch.randn(4, 8)
    prepared = qfx.prepare_fx(qfx.fuse_fx(model), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    int8 = qfx.convert_fx(prepared, strict=True)
    assert float((int8(x) - model(x)).detach().abs().max()) < 0.3
