"""An LSTM each part of which is observed as its user says, and its reference form: own scales for gates and states."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from qfx.api.convert import convert_to_reference_fx
from qfx.api.prepare import prepare_fx
from qfx.config import BackendConfig, QConfig, QConfigMapping
from qfx.nn import quantizable, quantized
from qfx.nn.errors import ModuleTypeError
from qfx.nn.quantizable.rnn import _LSTMLayer
from qfx.observers import default_weight_observer

Factory = Callable[[], Any]


def observe_lstm_parts(
    float_lstm: nn.LSTM,
    example_inputs: tuple[Any, ...],
    backend_config: BackendConfig | None = None,
    linear_output_obs_ctr: Factory | None = None,
    sigmoid_obs_ctr: Factory | None = None,
    tanh_obs_ctr: Factory | None = None,
    cell_state_obs_ctr: Factory | None = None,
    hidden_state_obs_ctr: Factory | None = None,
    split_gates: bool = False,
) -> quantizable.LSTM:
    """Take an LSTM apart, with an observer of its own kind for each kind of value in its cells.

    For hardware that keeps gates or cell states in other dtypes than 8 bits. Call it from the ``from_float`` of a class
    that `PrepareCustomConfig.set_float_to_observed_mapping` names.

    Args:
        float_lstm: an ``nn.LSTM`` with a ``qconfig``, which observes what no argument speaks of. Not changed.
        example_inputs: accepted for the original's sake; the sizes of the module tell the shapes.
        backend_config: what can be quantized in a cell, dtypes included; by default as `prepare_fx` has it.
        linear_output_obs_ctr: makes what observes the sum of the two linear layers, before the gates.
        sigmoid_obs_ctr, tanh_obs_ctr: of the input, forget and output gate; and of the cell gate.
        cell_state_obs_ctr: of the cell state and the two products it is the sum of.
        hidden_state_obs_ctr: of the hidden state, the cell's output.
        split_gates: a linear layer for each gate, instead of one for all.

    Returns:
        An observed LSTM, whose cells are graph modules.

    Raises:
        ModuleTypeError: no ``nn.LSTM``, or one without a ``qconfig``.
    """
    if not isinstance(float_lstm, nn.LSTM) or not hasattr(float_lstm, "qconfig"):
        raise ModuleTypeError(
            f"an LSTM in parts is made of an nn.LSTM with a qconfig, got {type(float_lstm).__name__}; set one first"
        )
    made = quantizable.LSTM(
        float_lstm.input_size,
        float_lstm.hidden_size,
        float_lstm.num_layers,
        float_lstm.bias,
        float_lstm.batch_first,
        float_lstm.dropout,
        float_lstm.bidirectional,
        split_gates=split_gates,
    )
    made.qconfig = float_lstm.qconfig
    mapping = _mapping(
        float_lstm.qconfig,
        4 if split_gates else 1,
        linear_output_obs_ctr,
        sigmoid_obs_ctr,
        tanh_obs_ctr,
        cell_state_obs_ctr,
        hidden_state_obs_ctr,
    )
    for index in range(float_lstm.num_layers):
        made.layers[index] = _LSTMLayer.from_float(
            float_lstm, index, float_lstm.qconfig, batch_first=False, split_gates=split_gates
        )
    made.eval()
    for direction in _directions(made):
        cell: Any = direction.cell
        state = torch.zeros(1, cell.hidden_size)
        examples = (torch.zeros(1, cell.input_size), (state, state))
        direction.cell = prepare_fx(cell, mapping, examples, backend_config=backend_config)
    return made


def _mapping(
    fallback: Any,
    sums: int,
    linear: Factory | None,
    sigmoid: Factory | None,
    tanh: Factory | None,
    cell_state: Factory | None,
    hidden_state: Factory | None,
) -> QConfigMapping:
    mapping = QConfigMapping().set_global(fallback)

    def observed_by(factory: Factory) -> QConfig:
        return QConfig(activation=factory, weight=default_weight_observer)

    gates = {"input_gate": sigmoid, "forget_gate": sigmoid, "output_gate": sigmoid, "cell_gate": tanh}
    for name, factory in gates.items():
        if factory is not None:
            mapping.set_module_name(name, observed_by(factory))
    # By their turn in the cell's forward: sums before the gates, then keep, add, their sum, and the output
    turns: dict[tuple[Any, int], Factory | None] = {
        **{(torch.add, index): linear for index in range(sums)},
        (torch.mul, 0): cell_state,
        (torch.mul, 1): cell_state,
        (torch.add, sums): cell_state,
        (torch.mul, 2): hidden_state,
    }
    for (function, index), factory in turns.items():
        if factory is not None:
            mapping.set_module_name_object_type_order("", function, index, observed_by(factory))
    return mapping


def _directions(lstm: Any) -> Iterator[Any]:
    for layer in lstm.layers:
        yield layer.layer_fw
        if hasattr(layer, "layer_bw"):
            yield layer.layer_bw


def reference_lstm_of_parts(
    observed_lstm: quantizable.LSTM, backend_config: BackendConfig | None = None
) -> quantized.LSTM:
    """The reference form of an LSTM of `observe_lstm_parts`, calibrated: quantized tensors in and out.

    Args:
        observed_lstm: not changed.
        backend_config: accepted for the original's sake.

    Raises:
        ModuleTypeError: its cells are no graph modules.
    """
    made: Any = copy.deepcopy(observed_lstm)
    for direction in _directions(made):
        if not isinstance(direction.cell, GraphModule):
            raise ModuleTypeError(
                f"the cells of this LSTM are {type(direction.cell).__name__}, not observed in parts; make it with "
                "observe_lstm_parts"
            )
        cell = convert_to_reference_fx(direction.cell)
        _open(cell)
        direction.cell = cell
    made.__class__ = quantized.LSTM
    return made  # type: ignore[no-any-return]


def _open(cell: GraphModule) -> None:
    """Let quantized tensors in and out of a cell: they need not be quantized again, nor dequantized."""
    for node in list(cell.graph.nodes):
        if node.target is torch.quantize_per_tensor and _enters(node.args[0]):
            node.replace_all_uses_with(node.args[0])
    output = cell.graph.output_node()
    for back in list(output.all_input_nodes):
        source: Any = back.args[0] if back.target == "dequantize" else back
        output.replace_input_with(back, source)
    cell.graph.eliminate_dead_code()
    cell.delete_all_unused_submodules()
    cell.recompile()


def _enters(value: Any) -> bool:
    """Whether a value is an input of the cell, or one of its states."""
    while isinstance(value, Node) and value.target is operator.getitem:
        value = value.args[0]
    return isinstance(value, Node) and value.op == "placeholder"
