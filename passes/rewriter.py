"""The one way a graph is edited: emit in the matched dialect, copy metadata, record provenance, roll back on error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from qfx import ops
from qfx.errors import RuleError
from qfx.graph import GraphView, Param, Reading, parent_of, set_attribute
from qfx.graph.nodes import erase_node, make_node
from qfx.graph.provenance import KEY, merged
from qfx.kernels.sums import Sums
from qfx.ops import Op
from qfx.passes.emit import call_arguments, module_like
from qfx.patterns import Match
from qfx.spellings import ModuleSpelling, spelling_of

# A dequantize stands for what made the value, not for what reads it.
_BOUNDARY = frozenset({ops.quantize, ops.dequantize})

KERNEL_KEY = "qfx_kernel"
"""Metadata of a node that computes on codes: its kernel, in words."""

SUMS_KEY = "qfx_sums"
"""Metadata of such a node that multiplies: how its kernel adds products (`qfx.kernels.sums`)."""

# Says what one node is; a node that takes its place is something else.
_OF_ONE_NODE = frozenset({KEY, "qfx_observes", KERNEL_KEY, SUMS_KEY, "qfx_half", "qfx_rule"})


@dataclass(eq=False, slots=True)
class NewParam:
    """A tensor a rule made; it becomes a module's parameter or an attribute with a ``get_attr``, whichever fits."""

    tensor: torch.Tensor
    name: str
    node: Node | None = None


_AS_IT_IS = frozenset({Node, int, float, bool, str, type(None), torch.dtype})


class Rewriter:
    """What a rule edits the graph with.

    A rule gets it as its second argument; new nodes appear just before the matched anchor, in the dialect of the
    matched node they stand for (a module stays a module), with the anchor's metadata and the origins of all matched
    nodes. Until the rule has returned, everything can be undone.

    Attributes:
        gm: the graph module being edited.
        view: its canonical view.
        renamed: names of replaced nodes -> name of what stands there now; sites are carried through it.
    """

    def __init__(self, gm: GraphModule, view: GraphView) -> None:
        self.gm, self.view = gm, view
        self.renamed: dict[str, str] = {}
        self.created: list[Node] = []
        self.orphans: set[str] = set()
        self._undo: list[Callable[[], None]] = []
        self._numbers: dict[str, int] = {}
        self._match: Match | None = None
        self._anchor: Node | None = None
        self._near: tuple[Node, ...] = ()
        self._meta: dict[str, Any] | None = None

    # -- what rules call -------------------------------------------------------------------------------------------
    def call(self, target: Op | Callable[..., Any], *inputs: Any, **attrs: Any) -> Node:
        """Emit a call of a canonical op (in the matched dialect) or of a plain function.

        Args:
            target: ``ops.conv2d``, or any importable function.
            inputs: nodes, captures, `NewParam`s, literals.
            attrs: canonical attributes for an op (``**m.conv.attrs``), keyword arguments for a function.

        Raises:
            RuleError: nothing in this dialect spells the op.
        """
        if not isinstance(target, Op):
            return self._insert("call_function", target, inputs, attrs)
        like = self._like(target)
        if like is not None and like.dialect == "module":
            return self._call_module_like(like, inputs, attrs)
        dialect = like.dialect if like is not None else self._dialect()
        try:
            spelling = like.spelling if like is not None and like.dialect != "method" else None
            if spelling is None or isinstance(spelling, ModuleSpelling) or spelling.inplace or spelling.primary:
                spelling = spelling_of(target, "aten" if dialect == "aten" else "function")
        except KeyError as error:
            raise RuleError(f"nothing spells {target}; give g.call a function, or register a spelling") from error
        args, kwargs = call_arguments(spelling, target, [self._written(v) for v in inputs], attrs)
        kind = "call_method" if isinstance(spelling.target, str) else "call_function"
        return self._insert(kind, spelling.target, args, kwargs)

    def method(self, name: str, *inputs: Any, **kwargs: Any) -> Node:
        """Emit ``inputs[0].name(...)``."""
        return self._insert("call_method", name, inputs, kwargs)

    def module(
        self, module: nn.Module, *inputs: Any, at: str | None = None, stem: str = "module", **kwargs: Any
    ) -> Node:
        """Emit a call of `module`, installed at `at` (replacing what is there) or under a free name from `stem`."""
        path = at if at is not None else self._free_name(stem)
        self.install(path, module)
        return self._insert("call_module", path, inputs, kwargs)

    def integer(self, node: Node, kernel: str, sums: Sums | None = None) -> Node:
        """Say that `node` computes on codes, by a kernel of this name, which ``explain`` reports; returns `node`.

        Args:
            node: the call.
            kernel: the name.
            sums: how the kernel adds products; None (default) if it has no weight, or who knows.
        """
        node.meta[KERNEL_KEY] = kernel
        if sums is not None:
            node.meta[SUMS_KEY] = sums
        return node

    def same(self, like: Reading, instead: dict[Any, Any]) -> Node:
        """Emit the call of `like` again, word for word, with some of its input nodes replaced."""
        old = like.node
        swap = {self._node(before): self._written(after) for before, after in instead.items()}

        def leaf(value: Any) -> Any:
            return swap.get(value, value) if isinstance(value, Node) else value

        args: Any = map_aggregate(old.args, leaf)
        kwargs: Any = map_aggregate(old.kwargs, leaf)
        return self._place(old.op, old.target, args, dict(kwargs))

    def packed(self, spec: Any, stem: str = "_packed_weight") -> Node:
        """Pack a weight (or anything else that cannot be copied) and fetch it.

        The graph module keeps `spec`, and packs again wherever it is copied or loaded.
        """
        gm: Any = self.gm
        number = self._numbers.get(stem, 0)
        while hasattr(gm, name := f"{stem}_{number}"):
            number += 1
        self._numbers[stem] = number + 1
        gm.rebuilt[name] = spec
        gm.pack(name)

        def undo() -> None:
            del gm.rebuilt[name]
            delattr(gm, name)

        self._undo.append(undo)
        return self._insert("get_attr", name, (), {})

    def param(
        self, tensor: torch.Tensor, *, like: Param | None = None, name: str | None = None, near: Param | None = None
    ) -> NewParam:
        """A new parameter: in the place of `like`, or called `name` beside `near`."""
        fqn = like.fqn if like is not None else None
        if fqn is None:
            prefix = near.fqn.rpartition(".")[0] if near is not None else ""
            fqn = f"{prefix}.{name or 'param'}" if prefix else (name or "param")
        return NewParam(tensor, fqn)

    def attribute(self, stem: str, value: Any) -> Node:
        """Store a tensor or object on the graph module under a free name from `stem`; a ``get_attr`` of it."""
        name = self._free_name(stem)
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            self.gm.register_buffer(name, value)
        else:
            setattr(self.gm, name, value)
        self._undo.append(lambda: delattr(self.gm, name))
        return self._insert("get_attr", name, (), {})

    def install(self, path: str, module: nn.Module) -> None:
        """Put a module at a path, in the place of what is there; nodes that call it are the caller's business."""
        owner, name = parent_of(self.gm, path)
        previous = owner._modules.get(name)
        if previous is not None:
            owner._modules[name] = module  # a name that is good already
        else:
            owner.add_module(name, module)
        self.view.forget_module(path)

        def undo() -> None:
            if previous is None:
                delattr(owner, name)
            else:
                owner.add_module(name, previous)
            self.view.forget_module(path)

        self._undo.append(undo)

    def fetch(self, name: str) -> Node:
        """A ``get_attr`` of an attribute that is there already."""
        return self._insert("get_attr", name, (), {})

    def sole_caller(self, target: str) -> bool:
        """Whether one node only calls the submodule at `target`."""
        return self.view.callers(target) == 1

    # -- what the driver calls -------------------------------------------------------------------------------------
    def begin(self, match: Match) -> None:
        """Start editing at a match."""
        self._match, self._anchor, self._near, self._meta = match, match.anchor, match.nodes, None
        self.created, self._undo = [], []

    def at(self, anchor: Node, near: Iterable[Node] = ()) -> _At:
        """Edit before `anchor` without a match, in a ``with`` block: for passes that walk the graph themselves."""
        return _At(self, anchor, tuple(near) or (anchor,))

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        for node in reversed(self.created):
            self.view.forget(node, erased=True)
            erase_node(self.gm.graph, node)
        for undo in reversed(self._undo):
            undo()
        self.created, self._undo = [], []

    def commit(self, result: Any) -> Node:
        """Put the rule's result in the anchor's place and drop matched nodes nobody needs any more.

        Raises:
            RuleError: the result is no node of this graph.
        """
        match = self._match
        assert match is not None
        anchor, node = match.anchor, self._node(result)
        if node is anchor:
            return node
        mine = set(self.created)
        anchor.replace_all_uses_with(node, delete_user_cb=lambda user: user not in mine)
        self.renamed[anchor.name] = node.name
        self._carry_names(match, mine)
        for user in node.users:
            self.view.forget(user)
        for dead in match.nodes:
            self.erase_if_unused(dead)
        return node

    def _carry_names(self, match: Match, mine: set[Node]) -> None:
        olds = [(old.name, self.view.read(old).op) for old in match.nodes if old is not match.anchor]
        wanted = {op for _, op in olds}
        by_op = {self.view.read(new).op: new.name for new in mine if self.view.may_be(new, wanted)}
        self.renamed.update({name: by_op[op] for name, op in olds if op in by_op})

    def replace(self, old: Node, value: Any, *, erase: bool = True) -> None:
        """Make all users of `old` use `value`; with `erase`, `old` goes, and the constants it fetched."""
        node = self._node(value)
        for user in list(old.users):
            if user is not node:
                user.replace_input_with(old, node)
                self.view.forget(user)
        self.renamed[old.name] = node.name
        if erase:
            self.erase_if_unused(old)

    def erase_if_unused(self, node: Node) -> None:
        """Erase a node without users, and what only it used."""
        stack = [node]
        while stack:
            each = stack.pop()
            if each._erased or each.users or each.op in ("placeholder", "output"):
                continue
            sources = each.all_input_nodes
            if each.op == "call_module":
                self.orphans.add(str(each.target))
            self.view.forget(each, erased=True)
            erase_node(self.gm.graph, each)
            stack.extend(s for s in sources if s.op == "get_attr" or s in self._near)

    def drop_orphans(self) -> None:
        """Delete submodules whose last caller was erased."""
        if self.orphans:
            used: set[str] = set()
            for node in self.gm.graph.nodes:
                path = str(node.target) if node.op in ("call_module", "get_attr") else ""
                while path and path not in used:  # and every module on the way to it
                    used.add(path)
                    path = path.rpartition(".")[0]
            for target in sorted(self.orphans - used):
                self.gm.delete_submodule(target)
                self.view.forget_module(target)
            self.orphans.clear()

    # -- details ---------------------------------------------------------------------------------------------------
    def _free_name(self, stem: str) -> str:
        # Counting on from the last number given keeps many names of one stem linear.
        number = self._numbers.get(stem, 0)
        name = f"{stem}_{number}" if number else stem
        while hasattr(self.gm, name):
            number += 1
            name = f"{stem}_{number}"
        self._numbers[stem] = number + 1
        return name

    def _like(self, op: Op) -> Reading | None:
        for node in self._near:
            reading = self.view.read(node)
            if reading.op is op:
                return reading
        return None

    def _dialect(self) -> str:
        assert self._anchor is not None
        return self.view.read(self._anchor).dialect

    def _node(self, value: Any) -> Node:
        value = value.node if isinstance(value, Reading | Param) else value
        if isinstance(value, Node) and value.graph is self.gm.graph and not value._erased:
            return value
        raise RuleError(f"expected a node of this graph, got {value!r}; return what g.call gave, or a capture")

    def _written(self, value: Any) -> Any:
        """A value as it stands in ``node.args``."""
        if type(value) in _AS_IT_IS:  # most are
            return value
        if isinstance(value, Reading):
            return value.node
        if isinstance(value, Param):
            if value.node is not None or value.late:
                return value.node or value
            return self._insert("get_attr", value.fqn, (), {})
        if isinstance(value, NewParam):
            if value.node is None:
                value.node = self._store(value)
            return value.node
        return type(value)(self._written(v) for v in value) if isinstance(value, list | tuple) else value

    def _store(self, new: NewParam) -> Node:
        stem = new.name.replace(".", "_")
        name = self._free_name(stem)
        set_attribute(self.gm, name, nn.Parameter(new.tensor, requires_grad=new.tensor.requires_grad))
        self._undo.append(lambda: delattr(self.gm, name))
        return self._insert("get_attr", name, (), {})

    def _call_module_like(self, like: Reading, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> Node:
        spelling, path = like.spelling, str(like.node.target)
        assert isinstance(spelling, ModuleSpelling)
        tensors = dict(zip(like.op.names, inputs, strict=False))
        clone = module_like(self.view.module(path), spelling, tensors, attrs)
        at = path if self.sole_caller(path) else None
        called = [tensors[p.canonical] for p in spelling.call.parameters if tensors.get(p.canonical) is not None]
        return self.module(clone, *called, at=at, stem=path.replace(".", "_"))

    def _insert(self, kind: str, target: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> Node:
        written = {key: self._written(value) for key, value in kwargs.items()} if kwargs else kwargs
        return self._place(kind, target, tuple([self._written(value) for value in args]), written)

    def _place(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
        assert self._anchor is not None
        name = str(target).replace(".", "_") if kind == "call_module" else None
        node = make_node(self.gm.graph, kind, target, args, kwargs, name)
        if self._meta is None:
            self._meta = self._inherited(self._anchor)
        node.meta.update(self._meta)
        self.created.append(node)
        self.view.created(node, self._anchor)
        return node

    def _inherited(self, anchor: Node) -> dict[str, Any]:
        """Metadata of nodes made here: the anchor's, and where all matched nodes came from."""
        meta = {key: value for key, value in anchor.meta.items() if key not in _OF_ONE_NODE}
        if self._near == (anchor,):
            return meta
        inner = (node for node in reversed(self._near) if self.view.read(node).op not in _BOUNDARY)
        meta[KEY] = merged(inner) or merged((anchor,))
        return meta


class _At:
    """Where a rewriter edits, for the length of a block; entered by the thousand, so no generator."""

    __slots__ = ("_before", "_g", "_here", "_point")

    def __init__(self, g: Rewriter, anchor: Node, near: tuple[Node, ...]) -> None:
        self._g, self._here = g, (None, anchor, near, None)

    def __enter__(self) -> Rewriter:
        g = self._g
        self._before = (g._match, g._anchor, g._near, g._meta)
        g._match, g._anchor, g._near, g._meta = self._here
        self._point = g.gm.graph.inserting_before(self._here[1])
        return g

    def __exit__(self, *error: Any) -> None:
        self._point.__exit__(*error)
        g = self._g
        g._match, g._anchor, g._near, g._meta = self._before
