"""Calls that compute on floats and on codes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

MODULES: frozenset[type[nn.Module]] = frozenset(
    {nn.ReLU, nn.ReLU6, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Identity}
    | {getattr(nn, f"{kind}{n}d") for kind in ("AdaptiveAvgPool", "AvgPool", "MaxPool") for n in (1, 2, 3)}
)
FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(getattr(F, f"adaptive_avg_pool{n}d") for n in (1, 2, 3)),
        *(getattr(F, f"max_pool{n}d") for n in (1, 2, 3)),
        *(F.elu, F.hardswish, F.instance_norm, F.layer_norm, F.leaky_relu, F.mish, F.silu, F.dropout, F.relu),
        *(F.hardtanh, F.hardtanh_, F.hardsigmoid, F.sigmoid, torch.sigmoid, torch.tanh),
        *(torch.cat, torch.stack, torch.sum, torch.repeat_interleave),
        *(torch.transpose, torch.squeeze, torch.unsqueeze),
    }
)
METHODS: frozenset[str] = frozenset(
    (
        *("contiguous", "detach", "detach_", "permute", "repeat", "repeat_interleave", "reshape", "resize_"),
        *("shape", "size", "squeeze", "squeeze_", "transpose", "unsqueeze", "unsqueeze_", "view"),
        *("hardsigmoid", "hardsigmoid_", "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_"),
    )
)


def check_node(node: Node, modules: Mapping[str, nn.Module]) -> tuple[bool, bool, bool]:
    """Whether a node computes on floats and on codes alike: as a function, as a tensor method, as a module.

    Args:
        node: any node.
        modules: path -> module, of the graph's module.

    Returns:
        Three booleans, of which one at most is true.

    Example:
        >>> gm = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
        >>> [check_node(node, dict(gm.named_modules())) for node in gm.graph.nodes][1]
        (False, False, True)
    """
    return (
        node.op == "call_function" and node.target in FUNCTIONS,
        node.op == "call_method" and node.target in METHODS,
        node.op == "call_module" and type(modules[str(node.target)]) in MODULES,
    )
