"""Patterns around ops with a weight: convolutions, transposed convolutions, linear."""

from __future__ import annotations

from qfx import ops
from qfx.patterns.language import Pattern, pattern
from qfx.patterns.terms import maybe

CONVS = (ops.conv1d, ops.conv2d, ops.conv3d)
TRANSPOSED = (ops.conv_transpose1d, ops.conv_transpose2d, ops.conv_transpose3d)
WEIGHTED = (*CONVS, *TRANSPOSED, ops.linear)


def any_value(value: object) -> bool:
    """Predicate of an attribute that may be anything, though a pattern that does not speak of it wants the default."""
    return True


def padded_anyhow(op: ops.Op) -> dict[str, object]:
    """For a convolution: whatever it pads with."""
    return {"padding_mode": any_value} if "padding_mode" in op.attrs else {}


def weighted_bn(op: ops.Op) -> Pattern:
    """`op` followed by a batch norm in eval mode."""

    @pattern
    def weighted_bn(x, w, mean, var, gamma=None, beta=None, b=None):  # type: ignore[no-untyped-def]
        y = op(x, w, b, **padded_anyhow(op)).named("weighted")
        return ops.batch_norm(y, gamma, beta, mean, var, training=False).named("bn")

    return weighted_bn


def training_bn(op: ops.Op, *, with_relu: bool) -> Pattern:
    """`op` followed by a batch norm in either mode; with `with_relu`, and by a relu or not."""

    @pattern
    def training_bn(x, w, mean, var, gamma=None, beta=None, b=None):  # type: ignore[no-untyped-def]
        y = op(x, w, b, **padded_anyhow(op)).named("weighted")
        y = ops.batch_norm(y, gamma, beta, mean, var, training=any_value).named("bn")
        return maybe(ops.relu, y, tag="relu") if with_relu else y

    return training_bn


def weighted_relu(op: ops.Op) -> Pattern:
    """`op`, then relu."""

    @pattern
    def weighted_relu(x, w, b=None):  # type: ignore[no-untyped-def]
        return ops.relu(op(x, w, b, **padded_anyhow(op)).named("weighted")).named("relu")

    return weighted_relu


@pattern
def bn_relu(x, mean, var, gamma=None, beta=None):  # type: ignore[no-untyped-def]
    """A batch norm of its own in either mode, then relu."""
    return ops.relu(ops.batch_norm(x, gamma, beta, mean, var, training=any_value).named("bn")).named("relu")


@pattern
def dropped(x):  # type: ignore[no-untyped-def]
    """Dropout that is switched off."""
    return ops.dropout(x, training=False)


@pattern
def identity(x):  # type: ignore[no-untyped-def]
    """Something that returns its input."""
    return ops.identity(x)


def optional_relu(op: ops.Op) -> Pattern:
    """`op` with or without relu after it."""

    @pattern
    def optional_relu(x, w, b=None):  # type: ignore[no-untyped-def]
        return maybe(ops.relu, op(x, w, b).named("weighted"), tag="relu")

    return optional_relu


def padded(op: ops.Op) -> Pattern:
    """`op` on a padded input."""

    @pattern
    def padded(x, w, b=None):  # type: ignore[no-untyped-def]
        return op(ops.pad(x).named("pad"), w, b).named("conv")

    return padded
