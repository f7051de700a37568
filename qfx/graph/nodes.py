"""Making nodes by the thousand, and copies of graphs."""

from __future__ import annotations

import copy
from collections import Counter
from functools import lru_cache
from typing import Any

from torch.fx import Graph, Node
from torch.fx.node import map_arg


def make_node(
    graph: Graph, op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
) -> Node:
    """``graph.create_node``, at half the price.

    torch 2.13 walks through all arguments it is given in search of symbolic numbers, only to warn of them; arguments
    that come afterwards it takes as they are. Names are torch's, each worked out once.
    """
    node = graph.create_node(op, target, (), {}, name or _stem(target))
    if args or kwargs:
        give_arguments(node, args, kwargs)
    return node


@lru_cache(maxsize=1024)
def _of_callable(target: Any) -> str:
    return Graph()._target_to_str(target)


def _stem(target: Any) -> str | None:
    """What torch would name a node by, before it makes the name unique; None where torch had better say."""
    if isinstance(target, str):
        return target if target.islower() and not target.startswith("__") else None
    return _of_callable(target)


def _give_in_turn(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    node.args, node.kwargs = args, kwargs


# What both setters call, each behind a look at the name of every attribute that is set on a node.
give_arguments: Any = getattr(Node, "_update_args_kwargs", _give_in_turn)


def erase_node(graph: Graph, node: Node) -> None:
    """``graph.erase_node``; the graph's names let go of the node, too, which would keep it for as long as the graph."""
    graph.erase_node(node)
    names = getattr(graph._graph_namespace, "_obj_to_name", None)
    if names is not None:
        names.pop(node, None)


def plain_names(graph: Graph) -> None:
    """Call the nodes of modules by their modules again, ``conv`` and ``conv_1``, where nobody else is called so.

    A rewrite makes the new node while the old one is there, so it cannot have the name. For when nobody knows the nodes
    by name yet.
    """
    taken, namespace = {node.name for node in graph.nodes}, graph._graph_namespace
    calls: Counter[str] = Counter()
    for node in graph.find_nodes(op="call_module"):
        stem = str(node.target).replace(".", "_")
        stem = f"_{stem}" if stem[:1].isdigit() else stem
        plain = f"{stem}_{calls[stem]}" if calls[stem] else stem
        calls[stem] += 1
        if node.name != plain and plain not in taken and node.name.startswith(f"{stem}_"):
            namespace._used_names.discard(plain)
            taken.discard(node.name)
            node._rename(plain)
            taken.add(node.name)


def copied_graph(graph: Graph) -> Graph:
    """A graph with the same nodes, names, types and metadata (the values in it shared, as torch's own copy does)."""
    made = Graph(tracer_cls=graph._tracer_cls)
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        args: Any = map_arg(node.args, new.__getitem__)
        kwargs: Any = map_arg(node.kwargs, new.__getitem__)
        twin = new[node] = make_node(made, node.op, node.target, args, kwargs, node.name)
        twin.meta.update(node.meta)
        if node.type is not None:
            twin.type = node.type
    made._codegen = copy.deepcopy(graph._codegen)
    return made
