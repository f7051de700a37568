"""Scales and zero points are fetched by nodes when the graph is done, where they are still read.

Conversion gives a scale and a zero point to every observed value, and lowering drops most of them again. As nodes that
come and go they would slow the conversion of long graphs by a twentieth, so until the end they are themselves among the
arguments of who reads them.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from qfx.graph import Param
from qfx.passes.pipeline import Context, FunctionPass


def fetch_constants(gm: GraphModule, context: Context) -> bool:
    """Write a ``get_attr`` node for each `Param` among arguments, before the first node that reads it."""
    g, changed = context.rewriter, False
    for node in gm.graph.nodes:
        late = _late(node)
        if not late:
            continue
        with g.at(node):
            for param in dict.fromkeys(late):
                if param.node is None:
                    param.node, param.late = g.fetch(param.fqn), False
        _read_nodes(node)
        context.view.forget(node)
        changed = True
    return changed


def _late(node: Node) -> list[Param]:
    found: list[Param] = []

    def note(value: Any) -> Any:
        if isinstance(value, Param):
            found.append(value)
        return value

    arguments: tuple[Any, ...] = (*node.args, *node.kwargs.values())
    for value in arguments:
        if isinstance(value, Param):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            map_aggregate(value, note)
    return found


def _read_nodes(node: Node) -> None:
    def fetched(value: Any) -> Any:
        return value.node if isinstance(value, Param) else value

    args: Any = map_aggregate(node.args, fetched)
    kwargs: Any = map_aggregate(node.kwargs, fetched)
    node.args, node.kwargs = args, kwargs


FETCH = FunctionPass("fetch constants", fetch_constants)
