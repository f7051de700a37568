"""The helpers PyTorch's graph matcher loads, and the matcher itself on graphs of qfx."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qfx.compat.private.lowering import (
    create_node_from_old_node_preserve_meta,
    get_linear_prepack_op_for_dtype,
    get_qconv_prepack_op,
    graph_module_from_producer_nodes,
)
from qfx.compat.private.nodes import collect_producer_nodes
from qfx.errors import KernelError


def test_a_new_node_reports_the_line_of_the_old_one() -> None:
    traced = torch.fx.symbolic_trace(nn.ReLU())
    old = next(iter(traced.graph.nodes))
    old.stack_trace = "model.py, line 3"
    new = create_node_from_old_node_preserve_meta(traced.graph, ("call_function", torch.neg, (old,)), old)
    assert (new.target, new.args, new.stack_trace) == (torch.neg, (old,), "model.py, line 3")


def test_what_packs_a_linear_layer() -> None:
    assert get_linear_prepack_op_for_dtype(torch.qint8) is torch.ops.quantized.linear_prepack
    assert get_linear_prepack_op_for_dtype(torch.float16) is torch.ops.quantized.linear_prepack_fp16
    with pytest.raises(KernelError, match=r"packs weights of torch\.quint8; use torch\.qint8 or torch\.float16"):
        get_linear_prepack_op_for_dtype(torch.quint8)


@pytest.mark.parametrize("kind", ["conv", "conv_transpose"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_packs_a_convolution(kind: str, rank: int) -> None:
    found = get_qconv_prepack_op(getattr(F, f"{kind}{rank}d"))
    assert found is getattr(torch.ops.quantized, f"{kind}{rank}d_prepack")


def test_what_is_no_convolution_packs_nothing() -> None:
    with pytest.raises(KernelError, match=r"is no convolution of torch\.nn\.functional"):
        get_qconv_prepack_op(F.linear)


class Constant(nn.Module):
    """A weight computed from parameters in two ways that meet, so the order of nodes matters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.weight / 2
        return F.linear(x, torch.abs(half.neg().exp() + half))


def test_what_a_weight_is_computed_from_becomes_a_graph() -> None:
    traced = torch.fx.symbolic_trace(Constant())
    linear = next(node for node in traced.graph.nodes if node.target is F.linear)
    producers = collect_producer_nodes(linear.args[1])
    assert producers is not None
    half = traced.weight / 2
    made = graph_module_from_producer_nodes(traced, producers)
    torch.testing.assert_close(made(), torch.abs(half.neg().exp() + half), rtol=0, atol=0)


# In a process of its own: PyTorch's matcher keeps the classes it was imported with.
PAIRS = """
import qfx, qfx.compat, torch
from torch import nn
qfx.compat.install()
from torch.ao.ns.fx.graph_matcher import get_matching_subgraph_pairs
x = torch.randn(4, 3, 6, 6)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("fbgemm"), (x,))
prepared(x)
converted = qfx.convert_fx(prepared)
for a, b in get_matching_subgraph_pairs(prepared, converted).values():
    if a.base_op_node.op == b.base_op_node.op == "call_module":
        kinds = prepared.get_submodule(a.base_op_node.target), converted.get_submodule(b.base_op_node.target)
        print(*(f"{type(kind).__module__}.{type(kind).__name__}" for kind in kinds))
"""


def test_the_graph_matcher_of_pytorch_pairs_graphs_of_qfx() -> None:
    done = subprocess.run([sys.executable, "-c", PAIRS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.nn.modules.linear.Linear qfx.nn.quantized.linear.Linear" in done.stdout.splitlines()
    assert any("ConvReLU2d" in line.split()[1] for line in done.stdout.splitlines()), done.stdout
