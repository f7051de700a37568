"""Does a node match a pattern in the reversed nested format? (``fx.match_utils``, ``fx.fuse``)"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx.config import MatchAllNode


def _is_match(modules: Mapping[str, nn.Module], node: Any, pattern: Any, max_uses: int = sys.maxsize) -> bool:
    """Whether `node` ends a `pattern`.

    Args:
        modules: the modules of the graph, by path.
        node: a node, or an argument that is none.
        pattern: a module class, a function, a method name, ``MatchAllNode``; or a tuple of such a thing and the
            patterns of its arguments (``(nn.ReLU, nn.Conv2d)`` is a convolution and then a relu).
        max_uses: how many readers the node may have.

    Example:
        >>> m = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
        >>> _, conv, relu, _ = m.graph.nodes
        >>> _is_match(dict(m.named_modules()), relu, (nn.ReLU, nn.Conv2d))
        True
    """
    if pattern is MatchAllNode:
        return True
    if isinstance(node, list | tuple) and isinstance(pattern, list | tuple) and not isinstance(node, torch.Size):
        alike = len(node) == len(pattern)
        return alike and all(_is_match(modules, each, want) for each, want in zip(node, pattern, strict=True))
    head, *inner = pattern if isinstance(pattern, tuple) else (pattern,)
    if not isinstance(node, Node) or len(node.users) > max_uses or not _spells(modules, node, head):
        return False
    if not inner:
        return True
    if len(inner) != len(node.args):
        return False
    # What is inside a pattern belongs to it alone
    return all(_is_match(modules, argument, want, max_uses=1) for argument, want in zip(node.args, inner, strict=True))


def _spells(modules: Mapping[str, nn.Module], node: Node, head: Any) -> bool:
    if isinstance(head, type) and issubclass(head, nn.Module):
        return node.op == "call_module" and type(modules.get(str(node.target))) is head
    if isinstance(head, str):
        return node.op == "call_method" and node.target == head
    return node.op == "call_function" and node.target is head
