"""From a match to the plain facts a kernel is asked about, and the guard that asks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from qfx.graph import Param, Reading
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.passes.annotate.inputs import PARAMETERS
from qfx.passes.lower.codes import output
from qfx.passes.lower.roles import seen_shape
from qfx.passes.rule import Guard
from qfx.patterns import Match
from qfx.reject import Reject


def site_of(m: Match) -> KernelSite:
    """What a kernel without a weight is told of the op of a match."""
    reading: Reading = m.op
    named = dict(zip(reading.op.names, reading.inputs, strict=False))
    constants = {name: value for name, value in named.items() if name in PARAMETERS}
    return KernelSite(
        reading.op.name,
        reading.attrs,
        output(m),
        rank=seen_rank(m),
        missing=tuple(name for name, value in constants.items() if value is None),
        computed=tuple(name for name, value in constants.items() if isinstance(value, Node)),
    )


def seen_rank(m: Match) -> int | None:
    """How many dimensions the result of a match had when it was observed; None where nothing tells."""
    return len(seen_shape(m.view, m.out.node)) or None


def supported(kernel: Kernel, site: Callable[[Match], KernelSite | Reject] = site_of) -> Guard:
    """Guard: the kernel takes the place. `site` may find a reason of its own to decline."""

    def supports(m: Match) -> bool | Reject:
        found = site(m)
        refused = found if isinstance(found, Reject) else kernel.supports(found)
        return True if refused is None else Reject(refused.reason, m.op.node)

    return supports


_DIMENSIONS = re.compile(r"(\d)d$")


def batched(result: str, *, linear: bool = True) -> Guard:
    """Guard: a layer or pool saw a batch; the float op takes one sample alone, the kernels do not.

    Args:
        result: name of the quantize that reads the op's result, whose shape calibration told.
        linear: whether a linear layer needs a batch, too.
    """

    def batched_(m: Match) -> bool | Reject:
        shape = seen_shape(m.view, getattr(m, result).node)
        found = _DIMENSIONS.search(m.op.op.name)
        alone = 1 + (int(found[1]) if found is not None else 0)
        if not shape or len(shape) > alone or (found is None and not linear):
            return True
        return Reject(f"{m.op.node} gave a result of shape {shape}: the kernels take batches, not samples", m.op.node)

    return batched_


def not_broadcast(part: str) -> Guard:
    """Guard: the sum a pattern ends with is as large as one of its parts; kernels add where that part lies.

    Args:
        part: name of the part, a quantize or its node.
    """

    def not_broadcast_(m: Match) -> bool | Reject:
        found = getattr(m, part)
        value = getattr(found, "node", found)
        shape, total = (seen_shape(m.view, each) for each in (value, m.out.node))
        if (shape and shape == total) or _without_data(m):
            return True
        said = f"a part of the sum in {m.op.node} has shape {shape}, the sum {total}; the kernel does not broadcast"
        return Reject(said, m.op.node)

    return not_broadcast_


def _without_data(m: Match) -> bool:
    """Whether the model is converted without having run, to look at its graph: its numbers mean nothing, as is said."""
    plan = getattr(m.view.gm, "plan", {})
    return not any(plan.get("shapes", {}).values()) and any(
        "never ran" in str(said) for said in plan.get("problems", {}).values()
    )


def constant(value: Any) -> Any:
    """The tensor of a parameter, detached; None for none."""
    return value.tensor.detach() if isinstance(value, Param) else None
