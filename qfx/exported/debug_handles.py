"""Numbers that follow nodes through rewrites, so that values of two graphs can be compared."""

from __future__ import annotations

from collections.abc import Iterator

from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from qfx.errors import ConfigError

KEY = "numeric_debug_handle"
_WITHOUT = ("placeholder", "output")


def generate_numeric_debug_handle(graph_module_or_exported_program: GraphModule | ExportedProgram) -> None:
    """Give every node but placeholders and outputs a unique integer in ``node.meta["numeric_debug_handle"]``.

    Nested graphs (branches of ``cond`` and their like) are included. A node that has a number keeps it.

    Args:
        graph_module_or_exported_program: changed in place, in the metadata of its nodes only.

    Raises:
        ConfigError: something else, or two nodes with one number.

    Example:
        >>> import torch
        >>> gm = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU()))
        >>> generate_numeric_debug_handle(gm)
        >>> [node.meta.get("numeric_debug_handle") for node in gm.graph.nodes]
        [None, 0, 1, None]
    """
    given = graph_module_or_exported_program
    gm = given.graph_module if isinstance(given, ExportedProgram) else given
    if not isinstance(gm, GraphModule):
        raise ConfigError(f"debug handles are for graph modules and exported programs, got {type(given).__name__}")
    taken: dict[int, Node] = {}
    for node in _nodes(gm):
        number = node.meta.get(KEY)
        if number is None:
            continue
        if number in taken:
            raise ConfigError(f"{taken[number]} and {node} both have {KEY} {number}; delete it from one of them")
        taken[number] = node
    following = max(taken, default=-1) + 1
    for node in _nodes(gm):
        if KEY not in node.meta:
            node.meta[KEY] = following
            following += 1


def _nodes(gm: GraphModule) -> Iterator[Node]:
    for module in gm.modules():
        if isinstance(module, GraphModule):
            yield from (node for node in module.graph.nodes if node.op not in _WITHOUT)
