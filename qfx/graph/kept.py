"""A graph module that keeps its class, its metadata and its plan through copy and pickle (torch's own drops them)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule

from qfx import layout
from qfx.graph.copying import copied_tables, copied_value
from qfx.graph.hooks import share_hooks
from qfx.graph.nodes import copied_graph
from qfx.graph.portable import Record, from_records, ours, to_records
from qfx.graph.walk import each_module

# What torch makes of a graph, and makes anew of each
_OF_CODE = frozenset({"_graph", "_code", "_codegen", "_lineno_map", "_prologue_start"})


class KeptGraphModule(GraphModule):
    """Base of the graph modules qfx returns.

    Attributes:
        plan: plain data keyed by node name; what later stages and reports need of earlier ones. No node is in it.
        rebuilt: attribute name -> an object whose ``pack()`` makes the attribute anew. Such an attribute (a packed
            weight) is a cache: copies and pickles carry the object, never the packed form.
    """

    if TYPE_CHECKING:  # TorchScript would read the annotations of a class, and has no word for these
        plan: dict[str, Any]
        rebuilt: dict[str, Any]

    @classmethod
    def adopt(cls, gm: GraphModule, plan: dict[str, Any] | None = None) -> KeptGraphModule:
        """A module of this class with the graph, the submodules and the packed weights of `gm` (shared, not copied)."""
        rebuilt = dict(getattr(gm, "rebuilt", {}))
        made = _assemble(cls, gm, gm.graph, plan if plan is not None else dict(getattr(gm, "plan", {})))
        made.rebuilt = rebuilt
        for name in rebuilt:
            setattr(made, name, getattr(gm, name))
        made.meta = dict(gm.meta)
        return made

    def recompile(self) -> Any:
        """Generate the code of the graph; not of the empty one the constructor starts with."""
        return super().recompile() if "plan" in self.__dict__ else None

    def draft(self, shared: Iterable[nn.Module] = ()) -> DraftGraphModule:
        """A copy to be edited; it generates no code until it is adopted by another class.

        The tables in its plan are shared: whoever changes one puts another in its place.

        Args:
            shared: submodules the editing only reads; they are not copied.
        """
        made = self._copied_as(DraftGraphModule, {id(module): module for module in shared}, dict(self.plan))
        assert isinstance(made, DraftGraphModule)
        return made

    def pack(self, name: str) -> None:
        """Make the packed attribute `name` from what describes it."""
        setattr(self, name, self.rebuilt[name].pack())

    def prune(self, keep: Iterable[str] = ()) -> None:
        """Drop parameters, buffers and submodules no node refers to; a float weight does not stay beside its codes.

        Args:
            keep: attributes to keep all the same.
        """
        used = {str(node.target) for node in self.graph.nodes if node.op in ("get_attr", "call_module")}
        kept = {".".join(name.split(".")[:n]) for name in used for n in range(1, name.count(".") + 2)}
        called = {str(node.target) for node in self.graph.nodes if node.op == "call_module"}
        wanted = kept | set(keep)

        stack: list[tuple[str, nn.Module]] = [("", self)]
        while stack:
            prefix, module = stack.pop()
            for table in (module._parameters, module._buffers, module._modules):
                for name in [name for name in table if prefix + name not in wanted]:
                    del table[name]
            stack.extend(
                (f"{prefix}{name}.", child)
                for name, child in module._modules.items()
                if child is not None and prefix + name not in called and prefix + name not in keep
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, spec in self.rebuilt.items():
            if hasattr(spec, "state"):
                packed = getattr(self, name) if layout.as_original else None
                destination[f"{prefix}{name}"] = packed if isinstance(packed, torch.ScriptObject) else spec.state()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given = {name: state_dict.pop(f"{prefix}{name}", None) for name in self.rebuilt}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        for name, state in given.items():
            spec = self.rebuilt[name]
            if not hasattr(spec, "with_state"):
                continue
            if state is None:
                missing_keys.append(f"{prefix}{name}")
                continue
            self.rebuilt[name] = spec.with_state(state)
            self.pack(name)
            state_dict[f"{prefix}{name}"] = state

    def _state(self) -> dict[str, Any]:
        """What a copy needs besides the graph: parameters, buffers, submodules, attributes; no packed weight."""
        dropped = {*_OF_CODE, "plan", "rebuilt", "meta", *self.rebuilt}
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptGraphModule:
        """A copy with its own submodules, graph, plan and freshly packed weights."""
        made = self._copied_as(_class(self), memo, copied_value(self.plan, memo))
        memo[id(self)] = made
        return made

    def _copied_as(self, cls: type[Any], memo: dict[int, Any], plan: dict[str, Any]) -> KeptGraphModule:
        state = copied_tables(self._state(), memo)
        made = _assemble(cls, _root(state), copied_graph(self.graph), plan)
        made.repack(copy.deepcopy(self.rebuilt, memo))
        made.meta = copied_value(self.meta, memo)
        return made

    def repack(self, rebuilt: dict[str, Any]) -> None:
        """Take over what packed attributes are made from, and make them."""
        self.rebuilt = rebuilt
        for name in rebuilt:
            self.pack(name)

    def __reduce__(self) -> Any:
        """Pickle the graph as records: torch would trace its code again and lose names and metadata."""
        records = to_records(self.graph)
        return (_restore, (_class(self), self._state(), records, self.plan, self.rebuilt, ours(self.meta)))


class DraftGraphModule(KeptGraphModule):
    """A graph module between two public ones: edited, never run, so no code is generated for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan, self.rebuilt = {}, {}

    def recompile(self) -> Any:
        """Nothing: whoever adopts the graph generates the code."""


def _class(module: GraphModule) -> type[Any]:
    # torch makes a class of its own for every graph module, just above ours.
    return type(module).__mro__[1]


def _root(state: dict[str, Any]) -> nn.Module:
    root = nn.Module()
    root.__dict__.update(state)
    return root


def _assemble(cls: type[Any], root: nn.Module, graph: Graph, plan: dict[str, Any]) -> KeptGraphModule:
    # Given the graph, the constructor would look up every node's target; the tables below hold them all.
    made: KeptGraphModule = cls(nn.Module(), Graph(tracer_cls=graph._tracer_cls), cls.__name__)
    for table in ("_parameters", "_buffers", "_modules"):
        made.__dict__[table].update(root.__dict__[table])
    for name, value in root.__dict__.items():
        if name not in made.__dict__ and name not in _OF_CODE:
            made.__dict__[name] = value
    made.training = root.training
    share_hooks(root, made)
    made.plan, made.rebuilt = plan, {}
    made.graph = graph
    return made


def _restore(
    cls: type[Any],
    state: dict[str, Any],
    records: list[Record],
    plan: dict[str, Any],
    rebuilt: dict[str, Any],
    meta: dict[str, Any],
) -> KeptGraphModule:
    made = _assemble(cls, _root(state), from_records(records), plan)
    made.repack(rebuilt)
    made.meta = dict(meta)
    return made


_OF_STATE = ("state_dict", "_save_to_state_dict", "get_extra_state")


@lru_cache(maxsize=1024)
def _saves_its_own_way(kind: Any) -> bool:
    return any(getattr(kind, name) is not getattr(nn.Module, name) for name in _OF_STATE)


def _state(module: nn.Module) -> list[Any]:
    """The values of a state dict; those of modules that save it as torch does without making their names."""
    values: list[Any] = []
    for part in each_module(module):
        kind: Any = type(part)
        if part._state_dict_hooks or _saves_its_own_way(kind):
            with layout.plain():  # packed objects do not say how large they are
                return list(module.state_dict().values())
        values.extend(part._parameters.values())
        values.extend(value for name, value in part._buffers.items() if name not in part._non_persistent_buffers_set)
    return values


def state_bytes(module: nn.Module) -> int:
    """Bytes of a module's state dict, each tensor once; quantized weights count a byte a code and their scales."""
    seen: set[int] = set()
    stack = _state(module)
    total = 0
    while stack:
        value = stack.pop()
        if isinstance(value, tuple | list):
            stack.extend(value)
        elif isinstance(value, torch.Tensor) and (at := value.data_ptr()) not in seen:
            seen.add(at)
            total += value.numel() * value.element_size()
            if value.is_quantized and value.qscheme() == torch.per_channel_affine:
                total += value.q_per_channel_scales().numel() * 16  # scale and zero point, 8 bytes each
    return total
