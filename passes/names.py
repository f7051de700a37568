"""What the scale and zero point of a value are called in a converted model, and so in its state dict."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from qfx.graph.attributes import taken_names
from qfx.graph.provenance import module_path
from qfx.passes.annotate.choices import is_configured
from qfx.passes.pipeline import Context


class QParamNames:
    """Free names, the same ones the original gives.

    They start with the path of the module that makes the value, or whose ``forward`` does; where that is not quantized
    and the value observed for the sake of its readers, with that of the first reader and ``_input``.
    """

    def __init__(self, context: Context) -> None:
        gm: Any = context.rewriter.gm
        self._taken = taken_names(gm)
        self._mapping = gm.plan["mapping"]
        self._next: dict[str, int] = {}

    def of(self, value: Node, observer: Node) -> tuple[str, str]:
        """Names of scale and zero point for a value and the node that observes it."""
        reader = next(iter(observer.users), None)
        if reader is None or is_configured(value, self._mapping):
            stem = module_path(value)
        else:
            stem = f"{module_path(reader)}_input"
        stem = stem.replace(".", "_")
        number = self._next.get(stem, 0)
        while not self._taken.isdisjoint(names := (f"{stem}_scale_{number}", f"{stem}_zero_point_{number}")):
            number += 1
        self._next[stem] = number + 1
        return names
