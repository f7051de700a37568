"""Fold the batch norm, merge the relu behind a layer that is called several times: a siamese encoder, a shared head.

The rules for these look at one call, and may not change a module that others call. Here all calls change together.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule, Node

from qfx import ops
from qfx.graph import GraphView, Param, Reading
from qfx.graph.provenance import KEY, merged
from qfx.nn.folding import fold
from qfx.passes.emit import module_like
from qfx.passes.fuse.batch_norm import normalizes
from qfx.passes.fuse.intrinsic import FUSED, merged_with
from qfx.passes.fuse.training import TRAINED, collectable, collected
from qfx.passes.pipeline import Context
from qfx.patterns.catalogue.weighted import TRANSPOSED, WEIGHTED
from qfx.spellings import ModuleSpelling


def fold_behind_shared(gm: GraphModule, context: Context) -> bool:
    """Fold batch norms behind modules called more than once, where every call is followed by the same one."""
    folded = [_fold(context, calls) for calls in _shared(gm, context.view)]  # a list: `any` would stop at the first
    return any(folded)


def merge_behind_shared(gm: GraphModule, context: Context) -> bool:
    """Merge the relu behind modules called more than once, where every call is followed by one."""
    merged = [_merge(context, calls) for calls in _shared(gm, context.view)]
    return any(merged)


def collect_behind_shared(gm: GraphModule, context: Context) -> bool:
    """Collect the batch norm, and the relu, behind modules called more than once, where every call has the same."""
    done = [_collect(context, calls) for calls in _shared(gm, context.view)]
    return any(done)


def _shared(gm: GraphModule, view: GraphView) -> list[list[Reading]]:
    """The calls of every layer with a weight that is called more than once."""
    calls: dict[int, list[Reading]] = {}
    for node in gm.graph.find_nodes(op="call_module"):
        if view.callers(str(node.target)) > 1 and (reading := view.read(node)).op in WEIGHTED:
            calls.setdefault(id(view.module(str(node.target))), []).append(reading)
    return list(calls.values())


def _merge(context: Context, calls: list[Reading]) -> bool:
    view, g = context.view, context.rewriter
    module = view.module(str(calls[0].node.target))
    relus = [relu for call in calls if (relu := _relu_behind(view, call.node)) is not None]
    if type(module) not in FUSED or len(relus) < len(calls):
        return False
    fused = merged_with(view, module, relus[0])
    for path in {str(call.node.target) for call in calls}:
        g.install(path, fused)
    for call, relu in zip(calls, relus, strict=True):
        _absorb(context, call.node, relu.node)
    return True


def _collect(context: Context, calls: list[Reading]) -> bool:
    view, g = context.view, context.rewriter
    kinds = TRAINED.get(type(view.module(str(calls[0].node.target))))
    norms = [norm for call in calls if (norm := _norm_module_behind(view, call.node)) is not None]
    if kinds is None or len(norms) < len(calls) or len({str(norm.node.target) for norm in norms}) > 1:
        return False
    pairs = list(zip(calls, norms, strict=True))
    if view.callers(str(norms[0].node.target)) > len(calls):
        return False  # it normalizes something else too
    if not all(collectable(view, *pair) is True and normalizes(view, *pair) is True for pair in pairs):
        return False
    relus = [relu for norm in norms if kinds[2] and (relu := _relu_behind(view, norm.node)) is not None]
    if len(relus) < len(calls):
        relus = []
    container = collected(view, *pairs[0], relus[0] if relus else None)
    for path in {str(call.node.target) for call in calls}:
        g.install(path, container)
    for followers in (relus, norms):  # from the end, so that each takes the place of what it followed
        for call, follower in zip(calls, followers, strict=False):
            _absorb(context, call.node, follower.node)
    return True


def _norm_module_behind(view: GraphView, layer: Node) -> Reading | None:
    if len(layer.users) != 1:
        return None
    (user,) = layer.users
    reading = view.read(user)
    return reading if reading.op is ops.batch_norm and reading.dialect == "module" else None


def _absorb(context: Context, call: Node, follower: Node) -> None:
    """Let a call stand for itself and what followed it, which its module does now."""
    call.meta[KEY] = merged((call, follower))
    context.rewriter.replace(follower, call)
    context.view.forget(call)


def _relu_behind(view: GraphView, layer: Node) -> Reading | None:
    if len(layer.users) != 1:
        return None
    (user,) = layer.users
    reading = view.read(user)
    return reading if reading.op is ops.relu else None


def _fold(context: Context, calls: list[Reading]) -> bool:
    view, g = context.view, context.rewriter
    norms = [_norm_behind(view, call.node) for call in calls]
    first = norms[0]
    if first is None or not all(norm is not None and _same(norm, first) for norm in norms):
        return False
    layer = calls[0]
    if not all(
        norm is not None and normalizes(view, call, norm) is True for call, norm in zip(calls, norms, strict=True)
    ):
        return False
    if any(isinstance(p, Param) and len(view.readers(p)) > len(calls) for p in layer.inputs[1:]):
        return False  # tied to a weight elsewhere
    w, b = (_tensor(p) for p in layer.inputs[1:3])
    gamma, beta, mean, var = (_tensor(p) for p in first.inputs[1:5])
    assert w is not None
    assert mean is not None
    assert var is not None
    transposed, groups = layer.op in TRANSPOSED, layer.attrs.get("groups", 1)
    weight, bias = fold(w, b, gamma, beta, mean, var, first.attrs["eps"], transposed=transposed, groups=groups)
    assert isinstance(layer.spelling, ModuleSpelling)
    folded = module_like(view.module(str(layer.node.target)), layer.spelling, {"w": weight, "b": bias}, {})
    for path in {str(call.node.target) for call in calls}:
        g.install(path, folded)
    for call, norm in zip(calls, norms, strict=True):
        assert norm is not None
        _absorb(context, call.node, norm.node)
    return True


def _tensor(param: Param | None) -> Tensor | None:
    return None if param is None else param.tensor


def _norm_behind(view: GraphView, layer: Node) -> Reading | None:
    """The batch norm in eval mode, of constants, that alone reads a layer's result."""
    if len(layer.users) != 1:
        return None
    (user,) = layer.users
    reading = view.read(user)
    if reading.op is not ops.batch_norm or reading.inputs[0] is not layer or reading.attrs["training"] is not False:
        return None
    constant = all(isinstance(p, Param) for p in reading.inputs[3:5])
    return reading if constant and all(p is None or isinstance(p, Param) for p in reading.inputs[1:3]) else None


def _same(one: Reading, other: Reading) -> bool:
    pairs = zip(one.inputs[1:], other.inputs[1:], strict=True)
    return all(a is b for a, b in pairs) and one.attrs["eps"] == other.attrs["eps"]
