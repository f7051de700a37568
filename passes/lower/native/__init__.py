"""The native target: PyTorch's quantized kernels and tensors, the engine chosen layer by layer."""

from __future__ import annotations

from qfx.passes.fetch import FETCH
from qfx.passes.halves import move_halves
from qfx.passes.lower.constants import quantize_constants
from qfx.passes.lower.facts import ask_codes
from qfx.passes.lower.native.clamps import join_clamps
from qfx.passes.lower.native.dynamic import lower_dynamic
from qfx.passes.lower.native.elementwise import ELEMENTWISE
from qfx.passes.lower.native.moves import MOVES
from qfx.passes.lower.native.names import name_packed
from qfx.passes.lower.native.onednn_only import ONEDNN_ONLY
from qfx.passes.lower.native.weighted import WEIGHTED_RULES
from qfx.passes.lower.splits import sink_splits
from qfx.passes.lower.views import reshape_views
from qfx.passes.pipeline import FunctionPass, Pass, Step

NATIVE: tuple[Step, ...] = (
    FunctionPass("views are reshapes", reshape_views),
    FunctionPass("keep splits in integers", sink_splits),
    FunctionPass("move half floats", move_halves),
    FunctionPass("lower dynamic and weight-only layers", lower_dynamic),
    Pass(
        "lower to native",
        (*WEIGHTED_RULES, *ONEDNN_ONLY, *ELEMENTWISE, *MOVES),
        requires=frozenset({"converted"}),
        provides=frozenset({"lowered"}),
        keep_misses=True,
    ),
    FunctionPass("join clamps", join_clamps),
    FunctionPass("quantize constants", quantize_constants),
    FunctionPass("ask codes for sizes", ask_codes),
    FunctionPass("name packed weights", name_packed),
    FETCH,
)
