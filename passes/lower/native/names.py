"""Names of packed weights: after the module whose forward calls the layer, numbered in the order the layers run."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch.fx import GraphModule

from qfx.graph.provenance import origins
from qfx.kernels.packing import PackedSpec
from qfx.passes.pipeline import Context


def name_packed(gm: GraphModule, context: Context) -> bool:
    """Name every packed weight ``<module>_packed_weight_<n>``; lowering goes backwards and names them as they come."""
    whole: Any = gm
    rebuilt = whole.rebuilt
    if not rebuilt:
        return False
    taken: Counter[str] = Counter()
    renamed: dict[str, tuple[str, Any, Any]] = {}
    for node in gm.graph.nodes:
        old = str(node.target)
        if node.op != "get_attr" or not isinstance(rebuilt.get(old), PackedSpec) or old in renamed:
            continue
        known = [origin for reader in node.users for origin in origins(reader)]
        scope = re.sub("[^0-9a-zA-Z_]+", "_", known[0].module_path) if known else ""
        stem = f"{scope}_packed_weight"
        while hasattr(gm, new := f"{stem}_{taken[stem]}") and new not in rebuilt:
            taken[stem] += 1  # the user's own
        taken[stem] += 1
        renamed[old] = new, rebuilt[old], getattr(gm, old)
    for old in renamed:
        del rebuilt[old]
        delattr(gm, old)
    for new, spec, packed in renamed.values():
        rebuilt[new] = spec
        setattr(gm, new, packed)
    for node in gm.graph.nodes:
        if node.op == "get_attr" and str(node.target) in renamed:
            node.target = renamed[str(node.target)][0]
            context.view.forget(node)
    return bool(renamed)
