"""Fuser methods: functions ``(is_qat, *modules) -> module`` that make one module of several that follow each other.

For training, modules are kept side by side in a container; after it, batch norm is folded into a copy of the layer
before it. Eager mode and backend configs use the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from qfx.nn.errors import FusionError, ModuleStateError
from qfx.nn.folding import fold_modules
from qfx.nn.intrinsic import fused as nni
from qfx.nn.qat.module import like

_CONV_BN = {nn.Conv1d: nni.ConvBn1d, nn.Conv2d: nni.ConvBn2d, nn.Conv3d: nni.ConvBn3d}
_CONV_BN_RELU = {nn.Conv1d: nni.ConvBnReLU1d, nn.Conv2d: nni.ConvBnReLU2d, nn.Conv3d: nni.ConvBnReLU3d}
_CONV_RELU = {nn.Conv1d: nni.ConvReLU1d, nn.Conv2d: nni.ConvReLU2d, nn.Conv3d: nni.ConvReLU3d}


def fuse_conv_bn(is_qat: bool, conv: Any, bn: Any) -> Any:
    """Fuse a convolution and its batch norm.

    Args:
        is_qat: for training: keep both in a container of ``qfx.nn.intrinsic``. Otherwise fold the batch norm, in
            evaluation mode, into a copy of the convolution.
        conv: ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
        bn: the batch norm of that dimension.

    Raises:
        ModuleStateError: the two are in different modes, in training mode without ``is_qat``, or do not fit.
        FusionError: there is no container for this convolution.

    Example:
        >>> type(fuse_conv_bn(False, nn.Conv2d(3, 8, 1).eval(), nn.BatchNorm2d(8).eval())).__name__
        'Conv2d'
    """
    _check_modes("Conv and BN both", conv, bn)
    if not is_qat:
        return _folded(conv, bn)
    _check_trainable(conv, bn)
    return _contained(_CONV_BN, "train", conv, bn)


def fuse_conv_bn_relu(is_qat: bool, conv: Any, bn: Any, relu: Any) -> Any:
    """Fuse a convolution, its batch norm and a relu into a container; see :func:`fuse_conv_bn`.

    Without ``is_qat`` the batch norm is folded into a copy of the convolution first.
    """
    _check_modes("Conv and BN both", conv, bn)
    _check_modes("Conv, BN and ReLU all", conv, bn, relu)
    if not is_qat:
        _container(_CONV_RELU, "eval", conv, bn, relu)
        return _contained(_CONV_RELU, "eval", _folded(conv, bn), relu)
    _check_trainable(conv, bn)
    return _contained(_CONV_BN_RELU, "train", conv, bn, relu)


def fuse_linear_bn(is_qat: bool, linear: Any, bn: Any) -> Any:
    """Fuse a linear layer and its ``nn.BatchNorm1d``; see :func:`fuse_conv_bn`."""
    _check_modes("Linear and BN both", linear, bn)
    if not is_qat:
        return _folded(linear, bn)
    _check_trainable(linear, bn)
    return nni.LinearBn1d(linear, bn)


def fuse_convtranspose_bn(is_qat: bool, convt: Any, bn: Any) -> Any:
    """Fold a batch norm into a copy of the transposed convolution before it; both in evaluation mode.

    Raises:
        ModuleStateError: another mode.
        FusionError: ``is_qat``: there is no such module for training.
    """
    _check_modes("ConvTranspose and BN both", convt, bn)
    if is_qat:
        raise FusionError("Fusing ConvTranspose+BatchNorm not yet supported in QAT; leave the two apart in training")
    return _folded(convt, bn)


def fuse_linear_bn_leaky_relu(is_qat: bool, linear: Any, bn: Any, leaky_relu: Any) -> Any:
    """Fuse a linear layer, its ``nn.BatchNorm1d`` and a leaky relu into ``LinearLeakyReLU``; see :func:`fuse_conv_bn`.

    Raises:
        ModuleStateError: they are in different modes, or in training mode.
        FusionError: ``is_qat``, or another layer than ``nn.Linear``: there is no container.
    """
    _check_modes("Linear, BN and LeakyReLU all", linear, bn, leaky_relu)
    if is_qat or type(linear) is not nn.Linear:
        raise FusionError(f"Cannot fuse {'train' if is_qat else 'eval'} modules: {(linear, bn, leaky_relu)}")
    return nni.LinearLeakyReLU(_folded(linear, bn), leaky_relu)


def fuse_conv_add(conv: Any, add: Any, relu: nn.Module | None, *, is_qat: bool) -> Any:
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
        conv = _folded(layer, bn)
    return nni.ConvAdd2d(conv, add) if relu is None else nni.ConvAddReLU2d(conv, add, relu)


@cache
def pair(container: Any) -> Callable[..., Any]:
    """The fuser method that puts two modules into a container, in training or not; one function a class."""

    def fuse_pair(is_qat: bool, m1: Any, m2: Any) -> Any:
        return container(m1, m2)

    return fuse_pair


def _check_modes(names: str, *modules: Any) -> None:
    if len({module.training for module in modules}) > 1:
        raise ModuleStateError(f"{names} must be in the same mode (train or eval).")


def _check_trainable(weighted: Any, bn: Any) -> None:
    layer, name = type(weighted).__name__, type(bn).__name__
    linear = isinstance(weighted, nn.Linear)
    what, channels = ("features", weighted.out_features) if linear else ("channel", weighted.out_channels)
    if bn.num_features != channels:
        raise ModuleStateError(
            f"Output {what} of {layer} must match num_features of {name}: {channels} and {bn.num_features}"
        )
    if not bn.affine:
        raise ModuleStateError(f"Only support fusing {name} with affine set to True")
    if not bn.track_running_stats:
        raise ModuleStateError(f"Only support fusing {name} with tracking_running_stats set to True")


def _container(containers: Mapping[Any, Any], mode: str, *modules: Any) -> Any:
    found = containers.get(type(modules[0]))
    if found is None:
        raise FusionError(f"Cannot fuse {mode} modules: {modules}")
    return found


def _contained(containers: Mapping[Any, Any], mode: str, *modules: Any) -> Any:
    return _container(containers, mode, *modules)(*modules)


def _folded(weighted: Any, bn: Any) -> Any:
    if weighted.training:
        raise ModuleStateError(
            f"Fusion only for eval! The {type(weighted).__name__} and its {type(bn).__name__} are in training mode; "
            "call model.eval(), or fuse_modules_qat for training"
        )
    weight, bias = fold_modules(weighted, bn)
    made = plain(weighted) if parametrize.is_parametrized(weighted) else copy.deepcopy(weighted)
    for name, folded in (("weight", weight), ("bias", bias)):
        before = getattr(weighted, name)
        made._parameters[name] = nn.Parameter(folded, requires_grad=before is not None and before.requires_grad)
    return made


# Where a module keeps the hooks of its forward, and their options.
_HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
)


def plain(weighted: Any) -> Any:
    """A module like a parametrized one without its parametrization, which has a class of its own, and parameters."""
    made = like(parametrize.type_before_parametrizations(weighted), weighted)
    if hasattr(weighted, "qconfig"):
        made.qconfig = weighted.qconfig
    for name in _HOOKS:
        getattr(made, name).update(getattr(weighted, name))
    return made
