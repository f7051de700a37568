"""The op vocabulary: ``ops.conv2d``, ``ops.relu`` ... and the facts about each.

Example:
    >>> from qfx import ops
    >>> ops.add.commutative, ops.reshape.recomputable, ops.sigmoid.qparams.value
    (True, True, 'fixed')
"""

from __future__ import annotations

from qfx.ops import vocabulary as _vocabulary
from qfx.ops.op import Attr as Attr
from qfx.ops.op import Op as Op
from qfx.ops.op import QParamClass as QParamClass
from qfx.ops.op import Symbolic as Symbolic
from qfx.ops.vocabulary import REGISTRY as REGISTRY
from qfx.ops.vocabulary import SPLITS as SPLITS
from qfx.ops.vocabulary import lookup as lookup

globals().update({name.rstrip("_"): op for name, op in vars(_vocabulary).items() if isinstance(op, Op)})


def __getattr__(name: str) -> Op:
    # Typed access for checkers: every vocabulary op is an attribute (``ops.max``, ``ops.pow`` without the underscore).
    raise AttributeError(f"there is no op called {name!r}; qfx.ops.REGISTRY lists all {len(REGISTRY)} of them")
