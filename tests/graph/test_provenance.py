"""Every node knows the user's nodes it came from, and where those were written."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import qfx
from qfx import ops
from qfx.capture import capture
from qfx.graph.provenance import describe, line_of, merged, module_path, origins, stamp


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))  # the only line


def the_only_line() -> str:
    numbered = enumerate(Path(__file__).read_text().splitlines(), 1)
    return f"{__file__}:{next(number for number, text in numbered if text.endswith('# the only line'))}"


def recorded(model: nn.Module) -> torch.fx.GraphModule:
    """What ``torch.fx`` traces when it is asked for stack traces; their last frames are torch's own."""
    tracer = torch.fx.Tracer()
    tracer.record_stack_traces = True
    return torch.fx.GraphModule(model, tracer.trace(model))


def test_a_traced_node_knows_name_spelling_module_and_line() -> None:
    gm = capture(Net().eval())
    (relu,) = gm.graph.find_nodes(op="call_function", target=torch.relu)
    (origin,) = origins(relu)
    assert (origin.name, origin.target) == ("relu", "torch.relu") or origin.target.endswith(".relu")
    assert origin.line.rpartition(":")[0] == __file__
    assert str(origin).startswith("relu (")
    assert describe(relu).startswith(f"relu ({__file__}:")
    (linear,) = gm.graph.find_nodes(op="call_module")
    assert module_path(linear) == origins(linear)[0].module_path == "inner.0"


def test_an_exported_node_knows_the_users_line_not_torchs() -> None:
    gm = torch.export.export(Net().eval(), (torch.randn(2, 4),)).module()
    nodes = [n for n in gm.graph.nodes if n.target in (torch.ops.aten.linear.default, torch.ops.aten.relu.default)]
    assert "linear.py" in nodes[0].meta["stack_trace"].splitlines()[-2]  # torch's frame is the last one recorded
    assert [line_of(n) for n in nodes] == [the_only_line()] * 2
    assert [module_path(n) for n in nodes] == ["inner.0", ""]


def test_a_stack_trace_of_the_symbolic_tracer_too() -> None:
    calls = [n for n in recorded(Net()).graph.nodes if n.op.startswith("call")]
    assert all("proxy.py" in n.meta["stack_trace"].splitlines()[-2] for n in calls)
    assert [line_of(n) for n in calls] == [the_only_line()] * 2


def test_rewrite_keeps_the_line_of_every_capture() -> None:
    @qfx.pattern
    def linear_relu(x: Any, w: Any, b: Any) -> Any:
        return ops.relu(ops.linear(x, w, b))

    @qfx.rule(linear_relu)
    def doubled(m: Any, g: Any) -> Any:
        return g.call(operator.add, m.x, m.x)

    exported = torch.export.export(Net().eval(), (torch.randn(2, 4),)).module()
    for gm, line in (
        (exported, the_only_line()),
        (recorded(Net()), the_only_line()),
        (torch.fx.symbolic_trace(Net()), ""),  # records none: nothing to tell
    ):
        (made,) = qfx.rewrite(gm, [doubled]).graph.find_nodes(op="call_function", target=operator.add)
        assert [origin.line for origin in origins(made)] == [line, line]
        assert [origin.name.partition("_")[0] for origin in origins(made)] in (["linear", "relu"], ["inner", "relu"])


def test_a_model_of_torchs_own_layers_only_has_no_line() -> None:
    gm = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),)).module()
    (linear,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert "linear.py" in linear.meta["stack_trace"]
    assert line_of(linear) == ""


def test_generated_code_is_no_line_of_the_users() -> None:
    traced = torch.fx.symbolic_trace(Net().eval())
    gm = capture(nn.Sequential(traced))  # runs the code that was generated for `traced`
    lines = {origins(n)[0].line.rpartition(":")[0] for n in gm.graph.nodes if n.op.startswith("call")}
    assert lines == {__file__}


def test_a_stamp_is_not_put_twice_and_merging_keeps_each_once() -> None:
    gm = capture(Net().eval())
    nodes = [n for n in gm.graph.nodes if n.op.startswith("call")]
    before = [origins(node) for node in nodes]
    stamp(gm)
    assert [origins(node) for node in nodes] == before
    assert merged([*nodes, *nodes]) == (*before[0], *before[1])


def test_a_node_nobody_stamped_is_described_by_its_name() -> None:
    graph = torch.fx.Graph()
    assert describe(graph.placeholder("x")) == "x"
    assert line_of(graph.placeholder("y")) == ""
