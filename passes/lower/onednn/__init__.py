"""The onednn target: plain ``uint8`` and ``int8`` tensors, onednn's kernels, and integer code of our own."""

from __future__ import annotations

from qfx.passes.fetch import FETCH
from qfx.passes.lower.facts import ask_codes
from qfx.passes.lower.onednn.clamps import join_clamps
from qfx.passes.lower.onednn.elementwise import ELEMENTWISE
from qfx.passes.lower.onednn.leftovers import make_leftovers_plain
from qfx.passes.lower.onednn.plain import make_plain
from qfx.passes.lower.onednn.weighted import WEIGHTED_RULES
from qfx.passes.lower.splits import sink_splits
from qfx.passes.lower.views import reshape_views
from qfx.passes.pipeline import FunctionPass, Pass, Step

ONEDNN: tuple[Step, ...] = (
    FunctionPass("views are reshapes", reshape_views),
    FunctionPass("keep splits in integers", sink_splits),
    FunctionPass("make integers plain", make_plain),
    Pass(
        "lower to onednn",
        (*WEIGHTED_RULES, *ELEMENTWISE),
        requires=frozenset({"converted"}),
        provides=frozenset({"lowered"}),
        keep_misses=True,
    ),
    FunctionPass("join clamps", join_clamps),
    FunctionPass("make weights no kernel took plain", make_leftovers_plain),
    FunctionPass("ask codes for sizes", ask_codes),
    FETCH,
)
