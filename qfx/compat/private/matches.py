"""Matches of patterns in the reversed nested format (``fx.match_utils``, ``fx.fuse``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.fx import Graph, Node

from qfx.compat.private.handlers import QuantizeHandler
from qfx.config import MatchAllNode

_MatchResult: TypeAlias = tuple[Node, list[Any], Any, QuantizeHandler]
"""Last node of a match, its nodes in the reversed nested format, the pattern, the handler."""
_MatchResultWithQConfig: TypeAlias = tuple[Node, list[Any], Any, QuantizeHandler, Any]
"""The same and its configuration."""


def _find_matches(
    graph: Graph,
    modules: Mapping[str, nn.Module],
    patterns: Mapping[Any, Any],
    root_node_getter_mapping: Mapping[Any, Callable[[Any], Node]],
    standalone_module_names: Sequence[str] | None = None,
    standalone_module_classes: Sequence[type] | None = None,
    custom_module_classes: Sequence[Any] | None = None,
) -> dict[str, _MatchResult]:
    """Match patterns from the end of a graph to its beginning; at each node the first that fits wins.

    The engine has its own matcher; this is for code that asks for matches in the old form.

    Args:
        graph: where to look.
        modules: its modules, by path.
        patterns: in the reversed nested format -> handler class, in the order they are tried.
        root_node_getter_mapping: pattern -> what finds its root; the first node called, for others.
        standalone_module_names, standalone_module_classes, custom_module_classes: modules that are a match by
            themselves.

    Returns:
        Name of a node -> the match it is part of.
    """
    found: dict[str, _MatchResult] = {}
    for node in reversed(graph.nodes):
        if node.name in found:
            continue
        for pattern, handler in patterns.items():
            if not _is_match(modules, node, pattern):
                continue
            nested = _nested(node, pattern)
            getter = root_node_getter_mapping.get(pattern)
            whole = list(nested) if isinstance(nested, tuple) else [nested]
            made = handler(nested, modules, getter)
            found.update(dict.fromkeys(_names(nested, pattern), (node, whole, pattern, made)))
            break
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if module is None:
            continue
        standalone = node.target in (standalone_module_names or ()) or type(module) in (standalone_module_classes or ())
        custom = type(module) in (custom_module_classes or ())
        if standalone or custom:
            made = QuantizeHandler(node, modules, is_custom_module=custom, is_standalone_module=standalone)
            found[node.name] = (node, [node], None, made)
    return found


def _nested(node: Any, pattern: Any) -> Any:
    """What a pattern matched, in its own form."""
    if not isinstance(pattern, tuple):
        return node
    return (node, *(_nested(argument, want) for argument, want in zip(node.args, pattern[1:], strict=False)))


def _names(nested: Any, pattern: Any) -> list[str]:
    """The nodes that are matched, without what any node would have matched."""
    if isinstance(pattern, tuple):
        return [name for each, want in zip(nested, pattern, strict=True) for name in _names(each, want)]
    return [] if pattern is MatchAllNode or not isinstance(nested, Node) else [nested.name]


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
    if not isinstance(node, Node | list | tuple) and type(node) is type(pattern):
        return bool(node == pattern)  # an argument that is spelled out
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
