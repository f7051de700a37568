"""Results of an LSTM that is a custom module, dequantized one by one (``fx.utils``)."""

from __future__ import annotations

import operator
from typing import Any

from torch import nn
from torch.fx import Graph, Node

from qfx.compat.private.arguments import _is_custom_module_lstm
from qfx.compat.private.nodes import get_new_attr_name_with_prefix
from qfx.eager import DeQuantStub


def _maybe_get_custom_module_lstm_from_node_arg(arg: Node, named_modules: dict[str, nn.Module]) -> Node | None:
    """The LSTM that is a custom module whose result, or an item of it, an argument is; None for any other argument.

    Items may have been dequantized by a ``DeQuantStub`` and put together to tuples again.
    """
    seen: Any = arg
    while isinstance(seen, Node):
        if _is_custom_module_lstm(seen, named_modules):
            return seen
        stub = seen.op == "call_module" and isinstance(named_modules.get(str(seen.target)), DeQuantStub)
        if not (stub or seen.target in (operator.getitem, tuple)):
            return None
        seen = seen.args[0]
        while isinstance(seen, list | tuple) and seen:
            seen = seen[0]
    return None


def _insert_dequant_stub(node: Node, model: nn.Module, named_modules: dict[str, nn.Module], graph: Graph) -> Node:
    """Put a ``DeQuantStub`` into the model and a call of it behind a node; the node's readers stay as they are."""
    name = get_new_attr_name_with_prefix("dequant_stub_")(model)
    stub = DeQuantStub()
    model.add_module(name, stub)
    named_modules[name] = stub
    with graph.inserting_after(node):
        return graph.call_module(name, (node,))


def _insert_dequant_stubs_for_custom_module_lstm_output(
    node: Node, model: nn.Module, named_modules: dict[str, nn.Module], graph: Graph
) -> Node:
    """Take the result of an LSTM, ``(output, (hidden, cell))``, apart, dequantize each tensor and put all together.

    Returns:
        The node of the tuple of floats, which all readers of the LSTM read from then on.
    """
    with graph.inserting_after(node):
        output = graph.call_function(operator.getitem, (node, 0))
    floats = [_insert_dequant_stub(output, model, named_modules, graph)]
    with graph.inserting_after(floats[0]):
        states = graph.call_function(operator.getitem, (node, 1))
    last = states
    for number in (0, 1):
        with graph.inserting_after(last):
            state = graph.call_function(operator.getitem, (states, number))
        last = _insert_dequant_stub(state, model, named_modules, graph)
        floats.append(last)
    with graph.inserting_after(last):
        inner = graph.call_function(tuple, ((floats[1], floats[2]),))
    with graph.inserting_after(inner):
        whole = graph.call_function(tuple, ((floats[0], inner),))
    for reader in list(node.users):
        if reader not in (output, states):
            reader.replace_input_with(node, whole)
    return whole
