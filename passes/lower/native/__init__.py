"""The native target: PyTorch's quantized kernels and tensors, the engine chosen layer by layer."""

from __future__ import annotations

from qfx.passes.lower.native.elementwise import ELEMENTWISE
from qfx.passes.lower.native.moves import MOVES
from qfx.passes.lower.native.onednn_only import ONEDNN_ONLY
from qfx.passes.lower.native.weighted import WEIGHTED_RULES
from qfx.passes.lower.splits import sink_splits
from qfx.passes.pipeline import FunctionPass, Pass, Step

NATIVE: tuple[Step, ...] = (
    FunctionPass("keep splits in integers", sink_splits),
    Pass(
        "lower to native",
        (*WEIGHTED_RULES, *ONEDNN_ONLY, *ELEMENTWISE, *MOVES),
        requires=frozenset({"converted"}),
        provides=frozenset({"lowered"}),
        keep_misses=True,
    ),
)
