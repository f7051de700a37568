"""torch's symbolic tracer at a lower price: parameters are looked up by name, frequent arguments go a short way."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import Node, Proxy, Tracer
from torch.fx.proxy import Scope

from qfx.graph.nodes import give_arguments

_LITERALS = frozenset({int, float, bool, str, type(None), torch.dtype})


class QuickTracer(Tracer):
    """What ``torch.fx.Tracer`` records, for less.

    torch 2.13 goes through all parameters of a model whenever one is read, so that a model of n functional layers costs
    n^2; and it copies its scope at every call of a module by way of pickling.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scope = _Scope("", None)
        self._named: tuple[nn.Module, dict[int, tuple[str, Any]]] | None = None

    def create_arg(self, a: Any) -> Any:
        """An argument as it stands in the graph."""
        kind = type(a)
        if kind is Proxy:
            return a.node
        if kind in _LITERALS:
            return a
        if kind is dict and not a:
            return {}
        if kind is tuple:
            return tuple([self.create_arg(item) for item in a])
        if isinstance(a, nn.Parameter):
            name = self._name_of(a)
            return self.create_node("get_attr", name, (), {}) if name is not None else super().create_arg(a)
        return super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Proxy]) -> Any:
        """An attribute as the code under trace sees it: parameters, and buffers if asked for, are proxies."""
        wanted = isinstance(attr_val, nn.Parameter) or (
            self.proxy_buffer_attributes and isinstance(attr_val, torch.Tensor)
        )
        name = self._name_of(attr_val) if wanted and not self.param_shapes_constant else None
        if name is None:
            return super().getattr(attr, attr_val, parameter_proxy_cache) if wanted else attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any | None = None,
    ) -> Node:
        """A node; it gets its arguments afterwards, as in `qfx.graph.nodes.make_node`."""
        node = super().create_node(kind, target, (), {}, name, type_expr)
        give_arguments(node, args, kwargs)
        return node

    def _name_of(self, tensor: torch.Tensor) -> str | None:
        """The first name of a parameter or buffer of the root; None for one that came after tracing began."""
        if self._named is None or self._named[0] is not self.root:
            found: dict[int, tuple[str, Any]] = {}
            for name, each in (*self.root.named_parameters(), *self.root.named_buffers()):
                found.setdefault(id(each), (name, each))
            self._named = (self.root, found)
        known = self._named[1].get(id(tensor))
        return known[0] if known is not None else None


class _Scope(Scope):
    """A scope that is copied without pickling."""

    def __copy__(self) -> _Scope:
        return _Scope(self.module_path, self.module_type)
