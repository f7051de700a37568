from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from qfx.errors import ConfigError
from qfx.nn.folding import fold, fold_modules


def randomized(bn: nn.Module) -> nn.Module:
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    if bn.affine:
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
    return bn.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["conv", "transposed", "linear"])
def test_rounds_like_torch(kind: str, bias: bool, affine: bool) -> None:
    """The integers of a folded layer depend on the last bit of its weight and bias."""
    torch.manual_seed(0)
    weighted = {
        "conv": lambda: nn.Conv2d(16, 32, 3, bias=bias),
        "transposed": lambda: nn.ConvTranspose2d(16, 32, 3, bias=bias),
        "linear": lambda: nn.Linear(16, 32, bias=bias),
    }[kind]()
    bn = randomized(nn.BatchNorm2d(32, affine=affine))
    statistics = (weighted.weight, weighted.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    if kind == "linear":
        if not affine:
            statistics = (*statistics[:5], torch.ones(32), torch.zeros(32))  # torch's own cannot do without
        expected = fuse_linear_bn_weights(*statistics)
    else:
        expected = fuse_conv_bn_weights(*statistics, transpose=kind == "transposed")
    weight, shift = fold_modules(weighted, bn)
    assert torch.equal(weight, expected[0])
    assert torch.equal(shift, expected[1])
    assert not weight.requires_grad


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_groups_of_a_transposed_convolution(groups: int, ins: int, outs: int) -> None:
    torch.manual_seed(groups * 100 + ins * 10 + outs)
    conv = nn.ConvTranspose1d(groups * ins, groups * outs, 3, groups=groups, dtype=torch.double)
    bn = randomized(nn.BatchNorm1d(groups * outs, dtype=torch.double))
    x = torch.randn(2, groups * ins, 5, dtype=torch.double)
    expected = bn(conv(x))
    weight, bias = fold_modules(conv, bn)
    torch.testing.assert_close(nn.functional.conv_transpose1d(x, weight, bias, groups=groups), expected)


def test_keeps_the_dtype() -> None:
    w, one = torch.randn(4, 3, 1).bfloat16(), torch.ones(4)
    assert [t.dtype for t in fold(w, None, one, one, one, one, 1e-5)] == [torch.bfloat16] * 2


def test_without_statistics_there_is_nothing_to_fold() -> None:
    with pytest.raises(ConfigError, match=r"BatchNorm2d behind this Conv2d has no running statistics.*track_running"):
        fold_modules(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
