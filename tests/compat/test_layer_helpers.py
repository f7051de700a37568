"""Helpers of the layer families, and of the results of LSTMs in graphs, by their old names."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from qfx.compat.private import dequant_stubs, layers, op_configs, reference_weights
from qfx.fake_quantize import FakeQuantize
from qfx.nn import intrinsic, qat, quantizable
from qfx.nn.quantized import reference
from qfx.observers import MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver

WEIGHT = torch.tensor([[-13.0, 12.0, 0.5], [1.0, 2.0, -3.0]])
SCALES, ZEROS = torch.tensor([0.5, 0.25]), torch.tensor([1, -2], dtype=torch.int32)


def test_the_observer_of_a_weight() -> None:
    assert isinstance(layers._get_weight_observer(FakeQuantize()), MovingAverageMinMaxObserver)
    observer = MinMaxObserver()
    assert layers._get_weight_observer(observer) is observer


@pytest.mark.parametrize(("low", "high", "needed"), [(-127, 127, True), (-128, 127, False), (-128, 100, True)])
def test_codes_that_quantizing_alone_would_leave(low: int, high: int, needed: bool) -> None:
    observer = MinMaxObserver(dtype=torch.qint8, quant_min=low, quant_max=high)
    assert layers._needs_weight_clamping(observer, torch.qint8) is needed


@pytest.mark.parametrize("per_channel", [False, True])
def test_codes_are_clamped(per_channel: bool) -> None:
    if per_channel:
        q = torch.quantize_per_channel(WEIGHT, SCALES.double(), ZEROS.long(), 0, torch.qint8)
    else:
        q = torch.quantize_per_tensor(WEIGHT, 0.5, 1, torch.qint8)
    kind = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    observer = kind(dtype=torch.qint8, quant_min=-10, quant_max=10)
    found = layers._clamp_weights(q, observer, None, None)
    assert torch.equal(found.int_repr(), q.int_repr().clamp(-10, 10))
    assert found.qscheme() == q.qscheme()


@pytest.mark.parametrize("scheme", [torch.per_tensor_affine, torch.per_channel_affine])
def test_a_reference_weight_argument_by_argument(scheme: Any) -> None:
    per_channel = scheme == torch.per_channel_affine
    scale, zero = (SCALES, ZEROS) if per_channel else (SCALES[0], ZEROS[0])
    told = (scheme, torch.qint8, scale, zero, 0)
    quantized = reference_weights._quantize_weight(WEIGHT, *told)
    assert quantized.qscheme() == scheme
    assert torch.equal(reference_weights._quantize_and_dequantize_weight(WEIGHT, *told), quantized.dequantize())
    plain = reference_weights._quantize_weight_decomposed(WEIGHT, *told, -10, None)
    assert torch.equal(plain, quantized.int_repr().clamp(-10))
    back = reference_weights._dequantize_weight_decomposed(plain, *told, -10, None)
    assert torch.equal(reference_weights._quantize_and_dequantize_weight_decomposed(WEIGHT, *told, -10, None), back)


def test_a_reference_weight_that_is_only_cast() -> None:
    told = (torch.per_tensor_affine, torch.float16, SCALES[0], ZEROS[0], 0)
    assert reference_weights._quantize_weight(WEIGHT, *told).dtype == torch.float16
    assert reference_weights._quantize_weight_decomposed(WEIGHT, *told, None, None).dtype == torch.float16
    assert reference_weights._quantize_and_dequantize_weight_decomposed(WEIGHT, *told, None, None) is WEIGHT


@pytest.mark.parametrize(
    ("scheme", "names"),
    [
        (None, "qscheme dtype"),
        (torch.per_tensor_affine, "qscheme dtype scale zero_point"),
        (torch.per_channel_affine, "qscheme dtype scale zero_point axis"),
    ],
)
def test_how_a_weight_is_quantized_in_a_state_dict(scheme: Any, names: str) -> None:
    state: dict[str, Any] = {}
    reference_weights._save_weight_qparams(state, "fc.", scheme, torch.qint8, SCALES, ZEROS, torch.tensor(0))
    expected = [f"weight_{name}" for name in names.split()]
    assert list(state) == [f"fc.{name}" for name in expected]
    assert reference_weights._get_weight_qparam_keys(state, "fc.") == expected


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_classes_of_convolutions(n: int) -> None:
    found = getattr(op_configs, f"_Conv{n}dMetadata")
    assert (found.root, found.bn, found.qat) == (
        getattr(nn, f"Conv{n}d"),
        getattr(nn, f"BatchNorm{n}d"),
        getattr(qat, f"Conv{n}d"),
    )
    assert found.transpose_reference is getattr(reference, f"ConvTranspose{n}d")
    assert found.bn_relu_qat is getattr(intrinsic.qat, f"ConvBnReLU{n}d")
    assert found.func is getattr(nn.functional, f"conv{n}d")


def test_the_results_of_an_lstm_are_dequantized_one_by_one() -> None:
    root = nn.Module()
    root.lstm = quantizable.LSTM(4, 4)
    graph = Graph()
    lstm = graph.call_module("lstm", (graph.placeholder("x"),))
    item = graph.call_function(operator.getitem, (lstm, 0))
    graph.output((item, lstm))
    named = dict(root.named_modules())
    whole = dequant_stubs._insert_dequant_stubs_for_custom_module_lstm_output(lstm, root, named, graph)
    gm = GraphModule(root, graph)
    gm.graph.lint()
    assert item.args[0] is whole
    assert [name for name, _ in root.named_children()] == ["lstm", *(f"dequant_stub_{i}" for i in range(3))]
    x = torch.randn(3, 2, 4)
    first, (output, (hidden, cell)) = gm(x)
    expected = root.lstm(x)
    assert torch.equal(first, output)
    torch.testing.assert_close((output, (hidden, cell)), expected)
    for node in (lstm, item, whole):
        assert dequant_stubs._maybe_get_custom_module_lstm_from_node_arg(node, named) is lstm
    (x_node,) = gm.graph.find_nodes(op="placeholder")
    assert dequant_stubs._maybe_get_custom_module_lstm_from_node_arg(x_node, named) is None


def test_a_weight_of_a_cell_and_how_it_is_quantized() -> None:
    told = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.5, "zero_point": 1}
    cell = reference.LSTMCell(2, 3, weight_qparams_dict={"weight_ih": told, "weight_hh": told, "is_decomposed": False})
    weight, *rest = reference_weights._get_weight_and_quantization_params(cell, "weight_ih")
    assert weight is cell.weight_ih
    assert rest == [torch.per_tensor_affine, torch.qint8, 0.5, 1, 0]
