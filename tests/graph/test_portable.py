"""Graphs travel as plain values: functions by name, nodes by place."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import fx

from qfx.graph.portable import Named, from_records, ours, to_records
from qfx.kernels import onednn


def traced() -> fx.Graph:
    graph = fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    z = graph.call_function(torch.ops.quantized.add, (x, y, 1.0, 0))
    z.meta.update({"qfx_kernel": "add", "val": object()})
    q = graph.call_function(onednn.quantize, (z, 0.1, 3))
    graph.output(graph.call_function(torch.cat, ([relu(graph, z), q],), {"dim": 1}))
    return graph


def relu(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(F.relu, (node,), {"inplace": False})


def test_a_graph_comes_back_the_same() -> None:
    graph = traced()
    again = from_records(pickle.loads(pickle.dumps(to_records(graph))))
    assert [n.name for n in again.nodes] == [n.name for n in graph.nodes]
    assert [n.target for n in again.nodes] == [n.target for n in graph.nodes]
    assert str(again) == str(graph)
    again.lint()


def test_only_our_metadata_travels() -> None:
    records = to_records(traced())
    assert [meta for *_, meta in records if meta] == [{"qfx_kernel": "add"}]
    assert ours({"qfx_line": "a:1", "val": 3}) == {"qfx_line": "a:1"}


def test_functions_travel_by_name() -> None:
    names = {record[2].name for record in to_records(traced()) if isinstance(record[2], Named)}
    assert "qfx.kernels.onednn.boundary.quantize" in names
    assert "torch.nn.functional.relu" in names


def test_a_function_that_is_gone_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"the graph calls qfx.no_such.thing, which cannot be imported here"):
        from_records([("call_function", "a", Named("qfx.no_such.thing"), (), {}, {})])


def test_a_function_without_a_name_stays_and_pickle_says_so() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(lambda x: x, (graph.placeholder("x"),)))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(to_records(graph))
