"""The fusions of a user's BackendConfig: its fuser methods, run where its patterns match.

The fusions of the default backend are rules of their own (`batch_norm.py`, `intrinsic.py`), which reach functions and
exported graphs too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn
from torch.fx import Node

from qfx import ops
from qfx.config import BackendConfig, MatchAllNode, get_default_backend_config
from qfx.errors import ConfigError
from qfx.graph import GraphView, Reading
from qfx.ops import Op
from qfx.passes.annotate.choices import configured_as
from qfx.passes.backend_pattern import ANY_MODE, BackendPattern, compiled
from qfx.passes.fuse.batch_norm import ask, is_to_ask, may_normalize
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Guard, Rule, rule
from qfx.patterns import Match
from qfx.reject import Reject

# A function in a pattern of modules stands for the module that computes it: a container holds modules.
_MODULES: dict[Op, Callable[[dict[str, Any]], nn.Module]] = {
    ops.relu: lambda _: nn.ReLU(),
    ops.tanh: lambda _: nn.Tanh(),
    ops.leaky_relu: lambda attrs: nn.LeakyReLU(attrs["negative_slope"]),
}


def backend_fusions(backend: BackendConfig | None, *, is_qat: bool = False) -> tuple[Rule, ...]:
    """The rules of a backend config, one for each pattern with a fuser method.

    None where it has no other fuser methods than the default backend, whose own rules do the same and more. Longer
    patterns win, then the order of the config.

    Args:
        backend: the config, or None for the default one.
        is_qat: what fuser methods are told: whether the modules are to be trained.
    """
    if backend is None:
        return ()
    patterns = [config for config in backend.configs if config.fuser_method is not None]
    if all(config.fuser_method in _known() for config in patterns):
        return ()
    return tuple(_rule(compiled(config, ANY_MODE), is_qat) for config in patterns)


@cache
def _known() -> frozenset[Any]:
    return frozenset(
        config.fuser_method for config in get_default_backend_config().configs if config.fuser_method is not None
    )


def _rule(backend_pattern: BackendPattern, is_qat: bool) -> Rule:
    @rule(backend_pattern.pattern, where=_fusable(backend_pattern, is_qat))
    def fuse_backend_pattern(m: Match, g: Rewriter) -> Node:
        config, root = backend_pattern.config, backend_pattern.root(m)
        module = g.view.module(str(root.target))
        for layer, bn in _to_ask(m):
            ask(layer, bn, g)
        parts = backend_pattern.matched(m, lambda value: _part(value, g.view, module.training))
        fuser: Any = config.fuser_method
        fused = fuser(is_qat, *_arguments(backend_pattern, parts))
        if not isinstance(fused, nn.Module):
            raise ConfigError(f"the fuser method of {backend_pattern.shown} returned {fused!r}, no module")
        extra = config._extra_inputs_getter
        inputs = (*root.args, *(extra(backend_pattern.matched(m)) if extra is not None else ()))
        named: dict[str, Any] = dict(root.kwargs)
        return configured_as(g.module(fused, *inputs, at=str(root.target), **named), root)

    return fuse_backend_pattern


def _fusable(backend_pattern: BackendPattern, is_qat: bool) -> Guard:
    def fusable(m: Match) -> bool | Reject:
        root = backend_pattern.root(m)
        if root.op != "call_module":
            return Reject(f"{root} is a function, and fuser methods take modules", root)
        calls = m.view.callers(str(root.target))
        if calls != 1:
            return Reject(f"module {root.target} is called {calls} times", root)
        for node in m.nodes:
            reading = m.view.read(node)
            if reading.op is ops.batch_norm and not is_qat and reading.attrs["training"]:
                return Reject(f"{node} normalizes by each batch's own statistics", node)
            if reading.op is ops.batch_norm and isinstance(reading.inputs[0], Node):
                said = may_normalize(m.view, m.view.read(reading.inputs[0]), reading)
                if isinstance(said, Reject):
                    return said
        return True

    return fusable


def _to_ask(m: Match) -> list[tuple[Reading, Reading]]:
    """Linear layers of a match with batch norms that fold only where their input has two axes, if nobody told."""
    norms = [reading for reading in map(m.view.read, m.nodes) if reading.op is ops.batch_norm]
    pairs = [(m.view.read(bn.inputs[0]), bn) for bn in norms if isinstance(bn.inputs[0], Node)]
    return [pair for pair in pairs if is_to_ask(m.view, *pair)]


def _part(value: Any, view: GraphView, training: bool) -> Any:
    """What a fuser method is given for one element: a module, a function or method name, or ``MatchAllNode``."""
    if not isinstance(value, Reading):
        return MatchAllNode
    if value.node.op == "call_module":
        return view.module(str(value.node.target))
    if value.op in _MODULES:
        return _MODULES[value.op](dict(value.attrs)).train(training)
    return value.node.target


def _arguments(backend_pattern: BackendPattern, parts: Any) -> tuple[Any, ...]:
    """The parts as the fuser method takes them: in the order of calls, or nested as the pattern is."""
    pattern = backend_pattern.config.pattern
    if not isinstance(parts, tuple):
        return (parts,)
    if not isinstance(pattern, tuple):
        return parts
    # The pattern's own elements, which may be nested patterns, in its order: the parts have them from the last on
    flat: list[Any] = []
    for _ in pattern[1:]:
        flat.append(parts[0])
        parts = parts[1]
    return (parts, *reversed(flat))
