from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from qfx.nn import intrinsic
from qfx.nn.errors import FusionError, ModuleStateError
from qfx.nn.intrinsic import fusers

SHAPES = {1: (2, 3, 5), 2: (2, 3, 5, 5), 3: (2, 3, 4, 4, 4)}


def trained_norm(dims: int, channels: int, **kwargs: Any) -> Any:
    norm = getattr(nn, f"BatchNorm{dims}d")(channels, **kwargs)
    norm(torch.randn(16, channels, *[2] * dims) * 3 + 1) if dims > 1 else norm(torch.randn(16, channels) * 3 + 1)
    return norm.eval()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_batch_norm_is_folded(dims: int, transposed: bool) -> None:
    conv = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")(3, 4, 2).eval()
    norm, x = trained_norm(dims, 4), torch.randn(*SHAPES[dims])
    before = copy.deepcopy(conv.state_dict())
    fuse = fusers.fuse_convtranspose_bn if transposed else fusers.fuse_conv_bn
    folded = fuse(False, conv, norm)
    assert type(folded) is type(conv)
    torch.testing.assert_close(folded(x), norm(conv(x)))
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())
    if transposed:
        with pytest.raises(FusionError, match="not yet supported in QAT"):
            fuse(True, conv, norm)
        return
    kept = fuse(True, conv, norm)
    assert type(kept) is getattr(intrinsic, f"ConvBn{dims}d")
    assert (kept[0], kept[1]) == (conv, norm)  # type: ignore[index]
    relu = nn.ReLU().eval()
    with_relu = fusers.fuse_conv_bn_relu(False, conv, norm, relu)
    assert type(with_relu) is getattr(intrinsic, f"ConvReLU{dims}d")
    torch.testing.assert_close(with_relu(x), relu(norm(conv(x))))
    assert type(fusers.fuse_conv_bn_relu(True, conv, norm, relu)) is getattr(intrinsic, f"ConvBnReLU{dims}d")


def test_linear() -> None:
    linear, norm, leaky, x = nn.Linear(3, 4).eval(), trained_norm(1, 4), nn.LeakyReLU(0.2).eval(), torch.randn(5, 3)
    torch.testing.assert_close(fusers.fuse_linear_bn(False, linear, norm)(x), norm(linear(x)))
    assert type(fusers.fuse_linear_bn(True, linear, norm)) is intrinsic.LinearBn1d
    fused = fusers.fuse_linear_bn_leaky_relu(False, linear, norm, leaky)
    assert type(fused) is intrinsic.LinearLeakyReLU
    torch.testing.assert_close(fused(x), leaky(norm(linear(x))))
    with pytest.raises(FusionError, match="Cannot fuse train modules"):
        fusers.fuse_linear_bn_leaky_relu(True, linear, norm, leaky)


@pytest.mark.parametrize("relu", [None, nn.ReLU()])
@pytest.mark.parametrize("with_norm", [False, True])
def test_additions(relu: nn.Module | None, with_norm: bool) -> None:
    conv, norm = nn.Conv2d(3, 4, 1).eval(), trained_norm(2, 4)
    x, y = torch.randn(1, 3, 2, 2), torch.randn(1, 4, 2, 2)
    fused = fusers.fuse_conv_add((norm, conv) if with_norm else conv, torch.add, relu, is_qat=False)
    expected = (norm(conv(x)) if with_norm else conv(x)) + y
    torch.testing.assert_close(fused(x, y), expected if relu is None else relu(expected))
    if with_norm:
        with pytest.raises(FusionError, match="Cannot fuse train modules"):
            fusers.fuse_conv_add((norm, conv), torch.add, relu, is_qat=True)


def test_two_modules_side_by_side() -> None:
    fuse = fusers.pair(intrinsic.LinearReLU)
    assert fusers.pair(intrinsic.LinearReLU) is fuse
    assert type(fuse(True, nn.Linear(1, 1), nn.ReLU())) is intrinsic.LinearReLU


@pytest.mark.parametrize(
    ("modules", "error", "reason"),
    [
        ((nn.Conv2d(1, 1, 1).eval(), nn.BatchNorm2d(1)), ModuleStateError, "Conv and BN both must be in the same mode"),
        ((nn.Conv2d(1, 2, 1), nn.BatchNorm2d(1)), ModuleStateError, "num_features of BatchNorm2d: 2 and 1"),
        ((nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False)), ModuleStateError, "affine set to True"),
        (
            (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)),
            ModuleStateError,
            "tracking_running_stats set to True",
        ),
        ((nn.ConvTranspose2d(1, 1, 1), nn.BatchNorm2d(1)), FusionError, "Cannot fuse train modules"),
    ],
)
def test_refused_for_training(modules: tuple[Any, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        fusers.fuse_conv_bn(True, *modules)


def test_no_container_after_training() -> None:
    odd = (nn.ConvTranspose2d(1, 1, 1).eval(), nn.BatchNorm2d(1).eval(), nn.ReLU().eval())
    with pytest.raises(FusionError, match="Cannot fuse eval modules"):
        fusers.fuse_conv_bn_relu(False, *odd)


def test_folding_needs_evaluation_mode() -> None:
    with pytest.raises(ModuleStateError, match="Fusion only for eval"):
        fusers.fuse_conv_bn(False, nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
