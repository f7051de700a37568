"""Helpers of lowering by hand (``fx.utils``); PyTorch's numeric suite loads what needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from qfx.errors import KernelError


def create_node_from_old_node_preserve_meta(
    quantized_graph: Graph, create_node_args: tuple[Any, ...], old_node: Node
) -> Node:
    """A node from the arguments of ``Graph.create_node`` that reports the source line of another node."""
    made = quantized_graph.create_node(*create_node_args)
    made.stack_trace = old_node.stack_trace
    return made


def get_linear_prepack_op_for_dtype(dtype: torch.dtype) -> Any:
    """What packs the weight of a linear layer.

    Args:
        dtype: of the weight, ``torch.qint8`` or ``torch.float16``.

    Raises:
        KernelError: another dtype.
    """
    if dtype not in (torch.qint8, torch.float16):
        raise KernelError(f"no linear kernel packs weights of {dtype}; use torch.qint8 or torch.float16")
    return torch.ops.quantized.linear_prepack if dtype == torch.qint8 else torch.ops.quantized.linear_prepack_fp16


def get_qconv_prepack_op(conv_op: Callable[..., Any]) -> Any:
    """What packs the weight of a convolution.

    Args:
        conv_op: ``F.conv1d`` to ``F.conv3d``, ``F.conv_transpose1d`` to ``F.conv_transpose3d``.

    Raises:
        KernelError: another function.
    """
    for name in (f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3)):
        if conv_op is getattr(torch.nn.functional, name):
            return getattr(torch.ops.quantized, f"{name}_prepack")
    raise KernelError(f"no kernel packs weights for {conv_op}; it is no convolution of torch.nn.functional")


def graph_module_from_producer_nodes(root: GraphModule, producer_nodes: list[Node]) -> GraphModule:
    """A graph module that computes one node and takes no input.

    Args:
        root: the graph module of the nodes.
        producer_nodes: the node, then what it is computed from, as ``collect_producer_nodes`` gives them.
    """
    wanted, graph, copies = set(producer_nodes), Graph(), dict[Node, Node]()
    for node in root.graph.nodes:  # in the order they run in, which that of the list need not be
        if node in wanted:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[producer_nodes[0]])
    return GraphModule(root, graph)
