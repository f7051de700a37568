"""Switch an exported graph between training and evaluation, in place.

``torch.export`` writes the mode of the model into its calls: ``aten.dropout(x, 0.3, True)``. Every operator that has a
mode says so in its schema, so switching is writing that one argument; all others (p, eps, momentum) stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from qfx.errors import ModelStateError
from qfx.graph.provenance import describe

# What schemas call the mode. An instance norm's is whether it normalizes by the input's own statistics.
_FLAGS = frozenset({"train", "training", "use_input_stats"})
_STATISTICS = "running_mean"
_COUNTER = "num_batches_tracked"

# Left over from batch norm by ``run_decompositions``: nothing of the other mode is in the graph any more. Overload
# packet -> whether it is the one for training.
_DECOMPOSED = {
    torch.ops.aten._native_batch_norm_legit_functional: True,
    torch.ops.aten._native_batch_norm_legit_no_training: False,
}

# Attention has a probability and no mode: in evaluation it is 0, and this metadata remembers what it was.
_ATTENTION = torch.ops.aten.scaled_dot_product_attention
_PROBABILITY = "dropout_p"
_REMEMBERED = "qfx_dropout_p"


def switch_modes(gm: GraphModule, training: bool) -> int:
    """Write the mode into every call that has one, nested graphs included; returns how many arguments that changed.

    Args:
        gm: a graph of aten calls, changed in place and compiled anew.
        training: the mode.

    Raises:
        ModelStateError: a batch norm was decomposed for the other mode; nothing is changed then.
    """
    graphs = [module for module in gm.modules() if isinstance(module, GraphModule)]
    for each in graphs:
        _refuse_decomposed(each, training)
    count = 0
    for each in graphs:
        changed = sum(_switch(node, training) for node in each.graph.nodes)
        if changed:
            each.recompile()
        count += changed
    return count


def _refuse_decomposed(gm: GraphModule, training: bool) -> None:
    for node in gm.graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _DECOMPOSED and _DECOMPOSED[packet] is not training:
            here, there = ("training", "evaluation") if _DECOMPOSED[packet] else ("evaluation", "training")
            raise ModelStateError(
                f"{describe(node)}: this batch norm was decomposed for {here}, and has no form for {there} any more; "
                "switch what torch.export gave before run_decompositions"
            )


def _switch(node: Node, training: bool) -> int:
    """How many arguments of one call changed."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return 0
    return sum(_write(node, name, value) for name, value in _wanted(node, training))


def _wanted(node: Node, training: bool) -> Iterator[tuple[str, Any]]:
    """(argument, value) of everything the mode decides in one call."""
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    if target.overloadpacket is _ATTENTION:
        now = _read(node, _PROBABILITY, 0.0)
        if training:
            yield _PROBABILITY, node.meta.get(_REMEMBERED, now)
        else:
            node.meta[_REMEMBERED] = now or node.meta.get(_REMEMBERED, now)
            yield _PROBABILITY, 0.0
    elif target is torch.ops.aten.add_.Tensor and _counts_batches(node):
        yield "other", int(training)
    elif _STATISTICS not in names or _read(node, _STATISTICS, None) is not None:
        # Without running statistics there is nothing else to normalize by than the batch, in either mode.
        yield from ((name, training) for name in names if name in _FLAGS)


def _counts_batches(node: Node) -> bool:
    counter = node.args[0]
    return isinstance(counter, Node) and counter.op == "get_attr" and str(counter.target).endswith(_COUNTER)


def _read(node: Node, name: str, default: Any) -> Any:
    index = _position(node, name)
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


def _write(node: Node, name: str, value: Any) -> bool:
    """Set one argument; whether that changed it."""
    if _read(node, name, None) == value:
        return False
    index = _position(node, name)
    if index < len(node.args):
        node.update_arg(index, value)
    else:
        node.update_kwarg(name, value)
    return True


def _position(node: Node, name: str) -> int:
    target: Any = node.target
    return [argument.name for argument in target._schema.arguments].index(name)
