"""How a sequence of modules becomes one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from qfx.config.backend_config import MatchAllNode
from qfx.eager.errors import NoCounterpartError
from qfx.nn import intrinsic as nni
from qfx.nn.intrinsic.fusers import fuse_conv_bn, fuse_conv_bn_relu, fuse_convtranspose_bn, fuse_linear_bn, pair

DEFAULT_FUSER_METHODS: dict[tuple[Any, ...], Callable[..., Any]] = {
    (nn.Conv1d, nn.BatchNorm1d): fuse_conv_bn,
    (nn.Conv1d, nn.BatchNorm1d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn,
    (nn.Conv2d, nn.BatchNorm2d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv3d, nn.BatchNorm3d): fuse_conv_bn,
    (nn.Conv3d, nn.BatchNorm3d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv1d, nn.ReLU): pair(nni.ConvReLU1d),
    (nn.Conv2d, nn.ReLU): pair(nni.ConvReLU2d),
    (nn.Conv3d, nn.ReLU): pair(nni.ConvReLU3d),
    (nn.Linear, nn.BatchNorm1d): fuse_linear_bn,
    (nn.Linear, nn.ReLU): pair(nni.LinearReLU),
    (nn.BatchNorm2d, nn.ReLU): pair(nni.BNReLU2d),
    (nn.BatchNorm3d, nn.ReLU): pair(nni.BNReLU3d),
    (nn.ConvTranspose1d, nn.BatchNorm1d): fuse_convtranspose_bn,
    (nn.ConvTranspose2d, nn.BatchNorm2d): fuse_convtranspose_bn,
    (nn.ConvTranspose3d, nn.BatchNorm3d): fuse_convtranspose_bn,
}
"""Classes in order of execution to the method that fuses modules of them."""


def get_fuser_method(
    op_list: tuple[Any, ...], additional_fuser_method_mapping: Mapping[Any, Callable[..., Any]] | None = None
) -> Callable[..., Any]:
    """Return the method that fuses modules of these classes.

    Args:
        op_list: the classes, in order of execution.
        additional_fuser_method_mapping: rows that come before the default ones. None by default.

    Raises:
        NoCounterpartError: there is none.

    Example:
        >>> get_fuser_method((nn.Conv2d, nn.BatchNorm2d)).__name__
        'fuse_conv_bn'
    """
    found = {**DEFAULT_FUSER_METHODS, **(additional_fuser_method_mapping or {})}.get(op_list)
    if found is None:
        raise NoCounterpartError(
            f"did not find fuser method for: {op_list} ; give one in additional_fuser_method_mapping"
        )
    return found


def get_fuser_method_new(op_pattern: Any, fuser_method_mapping: Mapping[Any, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the method a table has for a pattern, most particular row first.

    Args:
        op_pattern: a class or function, or nested tuples of them, the last operation first.
        fuser_method_mapping: rows of patterns; ``MatchAllNode`` in one stands for any part.

    Raises:
        NoCounterpartError: no row fits.
    """
    found = next((fuser_method_mapping[row] for row in rows_for(op_pattern) if row in fuser_method_mapping), None)
    if found is None:
        raise NoCounterpartError(f"did not find fuser method for: {op_pattern} ")
    return found


def rows_for(op_pattern: Any) -> list[Any]:
    """The rows that fit a pattern: every part of it as it is or ``MatchAllNode``, the most particular first."""
    if isinstance(op_pattern, (tuple, list)):
        return list(itertools.product(*(rows_for(part) for part in op_pattern)))
    return [op_pattern, MatchAllNode]
