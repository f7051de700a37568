"""Fuser methods: functions ``(is_qat, *modules) -> module`` that put modules which follow each other into one.

For training, modules are kept side by side in a container; after it, batch norm is folded into the weight before it.
Modules that were given are not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from qfx.nn.errors import FusionError, ModuleTypeError
from qfx.nn.intrinsic import fused

_CONVS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_BN: dict[Any, Any] = dict(zip(_CONVS, (fused.ConvBn1d, fused.ConvBn2d, fused.ConvBn3d), strict=True))
_CONV_RELU: dict[Any, Any] = dict(zip(_CONVS, (fused.ConvReLU1d, fused.ConvReLU2d, fused.ConvReLU3d), strict=True))
_CONV_BN_RELU: dict[Any, Any] = dict(
    zip(_CONVS, (fused.ConvBnReLU1d, fused.ConvBnReLU2d, fused.ConvBnReLU3d), strict=True)
)


def fuse_conv_bn(is_qat: bool, conv: Any, bn: Any) -> nn.Module:
    """Fuse a convolution and its batch norm: a ``ConvBn`` container for training, else a new convolution.

    Args:
        is_qat: for training; else both are in eval mode.
        conv: ``nn.Conv1d``, ``Conv2d`` or ``Conv3d``.
        bn: the batch norm of as many dimensions.

    Raises:
        ModuleTypeError: the two are in different modes, or the batch norm cannot be folded.
        FusionError: no container for such a convolution.

    Example:
        >>> conv, bn = nn.Conv2d(3, 4, 1).eval(), nn.BatchNorm2d(4).eval()
        >>> type(fuse_conv_bn(False, conv, bn)).__name__, type(fuse_conv_bn(True, conv, bn)).__name__
        ('Conv2d', 'ConvBn2d')
    """
    _same_mode(conv, bn)
    if not is_qat:
        return fuse_conv_bn_eval(conv, bn)  # type: ignore[no-any-return]
    _foldable(bn, conv.out_channels)
    return _container(_CONV_BN, "train", conv, bn)


def fuse_conv_bn_relu(is_qat: bool, conv: Any, bn: Any, relu: Any) -> nn.Module:
    """Fuse a convolution, its batch norm and a relu: ``ConvBnReLU`` for training, else ``ConvReLU``.

    Raises:
        ModuleTypeError: the three are in different modes, or the batch norm cannot be folded.
        FusionError: no container for such a convolution.
    """
    _same_mode(conv, bn, relu)
    if is_qat:
        _foldable(bn, conv.out_channels)
        return _container(_CONV_BN_RELU, "train", conv, bn, relu)
    if type(conv) not in _CONV_RELU:
        raise FusionError(f"Cannot fuse eval modules: {(conv, bn, relu)}")
    folded: nn.Module = fuse_conv_bn_eval(conv, bn)
    return _container(_CONV_RELU, "eval", folded, relu)


def fuse_linear_bn(is_qat: bool, linear: Any, bn: Any) -> nn.Module:
    """Fuse a linear layer and its batch norm: ``LinearBn1d`` for training, else a new linear layer.

    Raises:
        ModuleTypeError: the two are in different modes, or the batch norm cannot be folded.
    """
    _same_mode(linear, bn)
    if not is_qat:
        return fuse_linear_bn_eval(linear, bn)  # type: ignore[no-any-return]
    _foldable(bn, linear.out_features)
    return fused.LinearBn1d(linear, bn)


def fuse_convtranspose_bn(is_qat: bool, convt: Any, bn: Any) -> nn.Module:
    """Fold a batch norm into a new transposed convolution.

    Raises:
        ModuleTypeError: the two are in different modes.
        FusionError: for training, where there is no container.
    """
    _same_mode(convt, bn)
    if is_qat:
        raise FusionError("Fusing ConvTranspose+BatchNorm not yet supported in QAT: there is no module to train")
    return fuse_conv_bn_eval(convt, bn, transpose=True)  # type: ignore[no-any-return]


def fuse_linear_bn_leaky_relu(is_qat: bool, linear: Any, bn: Any, leaky_relu: Any) -> nn.Module:
    """Fuse a linear layer, its batch norm and a leaky relu into ``LinearLeakyReLU``.

    Raises:
        ModuleTypeError: the three are in different modes.
        FusionError: for training, where there is no container, or another layer than ``nn.Linear``.
    """
    _same_mode(linear, bn, leaky_relu)
    if is_qat or type(linear) is not nn.Linear:
        raise FusionError(f"Cannot fuse {'train' if is_qat else 'eval'} modules: {(linear, bn, leaky_relu)}")
    return fused.LinearLeakyReLU(fuse_linear_bn_eval(linear, bn), leaky_relu)


@cache
def sequential(container: Any) -> Callable[[bool, nn.Module, nn.Module], nn.Module]:
    """Return the fuser method that puts two modules into a container of this class, for training and after it.

    One function a class, so that configurations made twice are equal.
    """

    def put_into_one(is_qat: bool, first: nn.Module, second: nn.Module) -> nn.Module:
        return container(first, second)  # type: ignore[no-any-return]

    return put_into_one


def fuse_conv_add(conv: Any, add: Any, relu: nn.Module | None, *, is_qat: bool) -> nn.Module:
    """Fuse a 2-d convolution and the addition of another tensor, with or without relu.

    Args:
        conv: the convolution, or ``(bn, conv)`` with a batch norm to be folded.
        add: the function that adds.
        relu: the relu behind it, if any.
        is_qat: for training.

    Raises:
        FusionError: a batch norm, for training.
    """
    if isinstance(conv, tuple):
        bn, layer = conv
        if is_qat:
            raise FusionError(f"Cannot fuse train modules: {(layer, bn, add)}")
        conv = fuse_conv_bn_eval(layer, bn)
    return fused.ConvAdd2d(conv, add) if relu is None else fused.ConvAddReLU2d(conv, add, relu)


def _same_mode(*modules: nn.Module) -> None:
    if len({module.training for module in modules}) > 1:
        names = ", ".join(f"{type(m).__name__} ({'train' if m.training else 'eval'})" for m in modules)
        raise ModuleTypeError(f"modules to be fused must be in the same mode (train or eval), got {names}")


def _foldable(bn: Any, channels: Any) -> None:
    kind = type(bn).__name__
    if bn.num_features != channels:
        raise ModuleTypeError(
            f"Output channel of the layer must match num_features of {kind}: {channels} is not {bn.num_features}"
        )
    for name in ("affine", "track_running_stats"):
        if not getattr(bn, name):
            raise ModuleTypeError(f"Only support fusing {kind} with {name} set to True")


def _container(classes: dict[Any, Any], mode: str, first: nn.Module, *rest: nn.Module) -> nn.Module:
    made = classes.get(type(first))
    if made is None:
        raise FusionError(f"Cannot fuse {mode} modules: {(first, *rest)}")
    return made(first, *rest)  # type: ignore[no-any-return]
