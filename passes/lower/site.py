"""From a match to the plain facts a kernel is asked about, and the guard that asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from qfx.graph import Param, Reading
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.passes.lower.codes import output
from qfx.passes.rule import Guard
from qfx.patterns import Match
from qfx.reject import Reject

# Inputs of ops that kernels take as constants only; the rest are activations.
_CONSTANT_INPUTS = frozenset({"w", "b", "gamma", "beta", "mean", "var"})


def site_of(m: Match) -> KernelSite:
    """What a kernel without a weight is told of the op of a match."""
    reading: Reading = m.op
    named = dict(zip(reading.op.names, reading.inputs, strict=False))
    constants = {name: value for name, value in named.items() if name in _CONSTANT_INPUTS}
    return KernelSite(
        reading.op.name,
        reading.attrs,
        output(m),
        missing=tuple(name for name, value in constants.items() if value is None),
        computed=tuple(name for name, value in constants.items() if isinstance(value, Node)),
    )


def supported(kernel: Kernel, site: Callable[[Match], KernelSite | Reject] = site_of) -> Guard:
    """Guard: the kernel takes the place. `site` may find a reason of its own to decline."""

    def supports(m: Match) -> bool | Reject:
        found = site(m)
        refused = found if isinstance(found, Reject) else kernel.supports(found)
        return True if refused is None else Reject(refused.reason, m.op.node)

    return supports


def constant(value: Any) -> Any:
    """The tensor of a parameter, detached; None for none."""
    return value.tensor.detach() if isinstance(value, Param) else None
