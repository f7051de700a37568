"""Small helpers on nodes and graphs (``fx.utils``)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.fx import Graph, Node

from qfx.observers import ObserverBase


class NodeInfo(NamedTuple):
    """What a node calls, of any number of nodes."""

    op: Any
    target: Any


def get_custom_module_class_keys(custom_module_mapping: dict[Any, dict[type, type]]) -> list[Any]:
    """The classes a custom module mapping speaks of, once each, whatever the kind of quantization."""
    return list(dict.fromkeys(cls for table in custom_module_mapping.values() for cls in table))


def get_new_attr_name_with_prefix(prefix: str) -> Callable[[nn.Module], str]:
    """A function that gives a free attribute name of a module: the prefix (dots as underscores) and a number."""
    stem = prefix.replace(".", "_")

    def name_of(module: nn.Module) -> str:
        number = 0
        while hasattr(module, f"{stem}{number}"):
            number += 1
        return f"{stem}{number}"

    return name_of


def create_getattr_from_value(
    module: nn.Module, graph: Graph, prefix: str, value: Any, device: torch.device | None = None
) -> Node:
    """Keep a value as a buffer of a module, under a free name, and fetch it in a graph.

    Args:
        module: what gets the buffer.
        graph: where the ``get_attr`` goes.
        prefix: of the name.
        value: a tensor, or what makes one.
        device: of the buffer; by default that of the module's parameters.
    """
    name = get_new_attr_name_with_prefix(prefix)(module)
    if device is None:
        first = next(module.parameters(), next(module.buffers(), None))
        device = first.device if first is not None else None
    tensor = value.detach().clone() if isinstance(value, torch.Tensor) else torch.tensor(value)
    module.register_buffer(name, tensor.to(device))
    return graph.create_node("get_attr", name)


def collect_producer_nodes(node: Node) -> list[Node] | None:
    """A node and everything it is computed from, the node first; None where an input of the graph is among it."""
    found: dict[Node, None] = {node: None}
    stack = [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source.op == "placeholder":
                return None
            if source not in found:
                found[source] = None
                stack.append(source)
    return list(found)


def _reroute_tuple_getitem_pattern(graph: Graph) -> None:
    """Let readers of items of tuples read the items: ``getitem(tuple((a, b)), 1)`` is ``b``, however deeply nested.

    Changes the graph; the tuples nobody reads any more stay for dead code elimination.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not operator.getitem:
            continue
        source, index = node.args
        while isinstance(source, Node) and source.op == "call_function" and source.target is tuple:
            source = source.args[0]
        if isinstance(source, list | tuple) and isinstance(index, int):
            item = source[index]
            if isinstance(item, Node):
                node.replace_all_uses_with(item)


def _get_observer_from_activation_post_process(activation_post_process: Any) -> Any:
    """The observer: the module itself, or what a fake-quantize module has inside."""
    if isinstance(activation_post_process, ObserverBase):
        return activation_post_process
    return activation_post_process.activation_post_process


def return_arg_list(arg_indices: list[int]) -> Callable[[Node], list[int]]:
    """A function of a node: those of the positions that it has arguments at."""
    return lambda node: [position for position in arg_indices if position < len(node.args)]


def all_node_args_have_no_tensors(node: Node, modules: dict[str, nn.Module], cache: dict[Node, bool]) -> bool:
    """Whether a node surely reads no tensor: only numbers, and what is computed from sizes.

    Args:
        node: the node.
        modules: the modules of its graph, by path.
        cache: answers known already, by node; new ones are added.
    """
    if node not in cache:
        cache[node] = _reads_no_tensor(node, modules, cache)
    return cache[node]


def _reads_no_tensor(node: Node, modules: dict[str, nn.Module], cache: dict[Node, bool]) -> bool:
    if node.op in ("placeholder", "get_attr", "call_module"):
        return False
    if node.op == "call_function" and node.target is getattr and node.args[1] in ("ndim", "shape"):
        return True
    if node.op == "call_method" and node.target in ("size", "dim"):
        return True
    return all(all_node_args_have_no_tensors(source, modules, cache) for source in node.all_input_nodes)
