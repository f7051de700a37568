"""Rules, the rewriter, passes, pipelines, the trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx import ops
from qfx.errors import ConfigError, NonTermination, PassError, PatternError, RuleError
from qfx.graph.provenance import origins
from qfx.passes import Context, FunctionPass, Pass, Pipeline, rewrite, run_steps


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.relu(self.conv(x)))


@pytest.fixture(params=["symbolic", "exported"])
def gm(request: pytest.FixtureRequest) -> torch.fx.GraphModule:
    model = Net().eval()
    if request.param == "symbolic":
        return torch.fx.symbolic_trace(model)
    return torch.export.export(model, (torch.randn(1, 3, 4, 4),)).module()


@qfx.pattern
def double_relu(x: Any) -> Any:
    return ops.relu(ops.relu(x))


@qfx.rule(double_relu)
def one_relu(m: Any, g: qfx.Rewriter) -> Any:
    return g.call(ops.relu, m.x)


def text(gm: torch.fx.GraphModule) -> str:
    return str(gm.graph)


def test_a_rule_applies_in_both_captures_and_the_argument_is_not_changed(gm: torch.fx.GraphModule) -> None:
    before = text(gm)
    out = rewrite(gm, [one_relu])
    assert text(gm) == before
    assert sum("relu" in node.name for node in out.graph.nodes) == 1
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(out(x), gm(x))


def test_emission_stays_in_the_dialect(gm: torch.fx.GraphModule) -> None:
    @qfx.pattern
    def convolution(x: Any, w: Any, b: Any = None) -> Any:
        return ops.conv2d(x, w, b).named("conv")

    @qfx.rule(convolution)
    def doubled(m: Any, g: qfx.Rewriter) -> Any:
        return g.call(ops.conv2d, m.x, g.param(m.w.tensor * 2, like=m.w), m.b, **m.conv.attrs)

    def kind(graph: torch.fx.Graph) -> set[tuple[str, str]]:
        return {(n.op, str(n.target)) for n in graph.nodes if "conv" in str(n.target) and n.op != "get_attr"}

    out = rewrite(gm, [doubled])
    assert kind(out.graph) == kind(gm.graph)
    x = torch.zeros(1, 3, 4, 4)
    torch.testing.assert_close(out(x), gm(x))


def test_new_nodes_know_what_they_stand_for(gm: torch.fx.GraphModule) -> None:
    out = rewrite(gm, [one_relu])
    (node,) = (n for n in out.graph.nodes if "relu" in n.name)
    assert len(origins(node)) == 2
    assert all(Path(__file__).name in origin.line or origin.line == "" for origin in origins(node))


def test_a_raising_rule_names_rule_and_place_and_leaves_the_graph(gm: torch.fx.GraphModule) -> None:
    @qfx.rule(double_relu)
    def broken(m: Any, g: qfx.Rewriter) -> Any:
        g.call(ops.relu, m.x)
        g.attribute("leftover", torch.zeros(1))
        raise ZeroDivisionError("no")

    before = text(gm)
    with pytest.raises(RuleError, match=r"rule broken \(.*test_rules\.py:\d+\) raised at relu_1.* in pass p: no"):
        run_steps(gm, (Pass("p", (broken,)),))
    assert text(gm) == before
    assert not hasattr(gm, "leftover")


def test_a_foreign_result_is_refused(gm: torch.fx.GraphModule) -> None:
    @qfx.rule(double_relu)
    def foreign(m: Any, g: qfx.Rewriter) -> Any:
        return "relu"

    before = text(gm)
    with pytest.raises(RuleError, match="expected a node of this graph, got 'relu'"):
        run_steps(gm, (Pass("p", (foreign,)),))
    assert text(gm) == before


def test_a_declining_rule_lets_the_next_try(gm: torch.fx.GraphModule) -> None:
    @qfx.rule(double_relu, priority=-1)
    def shy(m: Any, g: qfx.Rewriter) -> Any:
        g.call(ops.relu, m.x)

    out = rewrite(gm, [one_relu, shy])
    log = out.meta["qfx_logs"][0].rules
    assert (log["shy"].tried, log["shy"].applied, log["one_relu"].applied) == (1, 0, 1)


def test_priority_then_length_then_declaration() -> None:
    @qfx.pattern
    def single(x: Any) -> Any:
        return ops.relu(x)

    fired = []

    def ruled(pattern: qfx.patterns.Pattern, name: str, **how: Any) -> Any:
        def action(m: Any, g: qfx.Rewriter) -> Any:
            fired.append(name)

        return qfx.rule(pattern, **how)(action)

    rules = [
        ruled(single, "short"),
        ruled(double_relu, "long"),
        ruled(double_relu, "later"),
        ruled(single, "first", priority=-1),
    ]
    rewrite(torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.ReLU())), rules)
    assert fired[:4] == ["first", "long", "later", "short"]


def test_a_rule_that_feeds_itself_is_stopped(gm: torch.fx.GraphModule) -> None:
    @qfx.pattern
    def single(x: Any) -> Any:
        return ops.relu(x)

    @qfx.rule(single)
    def again(m: Any, g: qfx.Rewriter) -> Any:
        return g.call(ops.relu, m.x)

    with pytest.raises(NonTermination, match=r"rule again .* fired 9 times on its own output"):
        rewrite(gm, [again], until="fixpoint")
    assert rewrite(gm, [again], until="once").meta["qfx_logs"][0].rules["again"].applied == 2


def test_fixpoint_reaches_what_once_does_not() -> None:
    gm = torch.fx.symbolic_trace(nn.Sequential(*[nn.ReLU() for _ in range(6)]))
    assert len(rewrite(gm, [one_relu], until="once").graph.nodes) > 3
    assert len(rewrite(gm, [one_relu], until="fixpoint").graph.nodes) == 3


def test_a_rule_must_fit_its_pattern() -> None:
    with pytest.raises(PatternError, match=r"must take \(m, g\)"):
        qfx.rule(double_relu)(lambda m: m)
    with pytest.raises(PatternError, match="takes a @pattern"):
        qfx.rule(lambda x: x)(lambda m, g: None)  # type: ignore[arg-type]


def test_an_unknown_name_on_the_match_is_explained(gm: torch.fx.GraphModule) -> None:
    @qfx.rule(double_relu)
    def misspelled(m: Any, g: qfx.Rewriter) -> Any:
        return m.conv

    with pytest.raises(RuleError, match="pattern double_relu binds no 'conv'; it binds x"):
        rewrite(gm, [misspelled])


def test_a_pipeline_checks_what_its_passes_need() -> None:
    needy = Pass("needy", (), requires=frozenset({"normalized"}))
    with pytest.raises(PassError, match="pass needy needs normalized; before it there is nothing"):
        Pipeline("p", (needy,))
    giver = Pass("giver", (), provides=frozenset({"normalized"}))
    assert Pipeline("p", (giver, needy))
    assert Pipeline("p", (needy,), given=frozenset({"normalized"}))


def test_a_failing_pass_names_those_before_it(gm: torch.fx.GraphModule) -> None:
    def fail(gm: torch.fx.GraphModule, context: Context) -> bool:
        raise KeyError("x")

    with pytest.raises(PassError, match=r"pass bad failed: KeyError: 'x' \(passes before it: good\)"):
        run_steps(gm, (Pass("good", ()), FunctionPass("bad", fail)))


def test_passes_work_with_torch_fx(gm: torch.fx.GraphModule) -> None:
    from torch.fx.passes.infra.pass_manager import PassManager

    result = PassManager(passes=[Pass("p", (one_relu,))])(gm)
    assert result.modified
    assert text(result.graph_module).count("relu") < 6


def test_the_trace_records_each_rewrite(gm: torch.fx.GraphModule, tmp_path: Path) -> None:
    path = tmp_path / "rewrites.jsonl"
    with qfx.trace(path):
        rewrite(gm, [one_relu], name="mine")
    (event,) = map(json.loads, path.read_text().splitlines())
    assert (event["pass_name"], event["rule"], event["anchor"]) == ("mine", "one_relu", "relu_1")
    assert event["line"].startswith(__file__)
    assert len(event["before"]) == 2
    assert len(event["after"]) == 1
    assert event["microseconds"] > 0


def test_dead_code_that_writes_is_kept() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 0
            y.add_(1)
            _ = y * 3
            return F.relu(F.relu(y))

    gm = torch.fx.symbolic_trace(Writes())
    out = rewrite(gm, [one_relu])
    assert "add_" in text(out)
    assert "mul" not in text(out)
    x = torch.randn(4)
    assert torch.equal(out(x), gm(x))


def test_a_chain_of_100_000_nodes() -> None:
    graph = torch.fx.Graph()
    node = graph.placeholder("x")
    for _ in range(50_000):
        node = graph.call_function(F.relu, (graph.call_function(torch.neg, (node,)),))
    graph.output(node)
    gm = torch.fx.GraphModule(nn.Module(), graph)

    @qfx.pattern
    def relu_of_neg(x: Any) -> Any:
        return ops.relu(ops.neg(x))

    @qfx.rule(relu_of_neg)
    def to_abs(m: Any, g: qfx.Rewriter) -> Any:
        return g.call(ops.abs, m.x)

    out = qfx.rewrite(gm, [to_abs])  # copied, matched, rewritten, checked and compiled
    log = out.meta["qfx_logs"][0]
    assert log.rules["to_abs"].applied == 50_000
    assert (len(gm.graph.nodes), len(out.graph.nodes)) == (100_002, 50_002)
    assert log.steps == 150_000  # three terms a match: one and a half steps per node, whatever the length
    assert torch.equal(out(torch.tensor([-1.0, 2.0])), torch.tensor([1.0, 2.0]))


# -- wrong arguments -----------------------------------------------------------------------------------------------
def _relus() -> torch.fx.GraphModule:
    return torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.ReLU()))


@qfx.pattern
def _two_relus(x: Any) -> Any:
    return ops.relu(ops.relu(x))


def _once(where: Any = ()) -> Any:
    @qfx.rule(_two_relus, where=where)
    def one_relu(m: Any, g: Any) -> Any:
        return g.call(ops.relu, m.x)

    return one_relu


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((nn.ReLU(), []), "rewrite takes a GraphModule, got ReLU; make one by torch.fx.symbolic_trace"),
        ((_relus(), _once()), r"rewrite takes a list of rules, got one_relu; write \[it\]"),
        ((_relus(), 3), "rewrite takes a list of rules, got int"),
        ((_relus(), [_two_relus]), "rewrite takes rules made with @qfx.rule"),
    ],
)
def test_rewrite_refuses_what_it_cannot_take(arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        qfx.rewrite(*arguments)


def test_rewrite_refuses_another_until() -> None:
    with pytest.raises(ConfigError, match="until= is 'once' or 'fixpoint', got 'twice'"):
        qfx.rewrite(_relus(), [], until="twice")  # type: ignore[arg-type]


def test_rule_and_pattern_refuse_what_they_cannot_decorate() -> None:
    with pytest.raises(PatternError, match="where= takes functions of the match, got 3"):
        _once(3)
    with pytest.raises(PatternError, match="priority= is a whole number"):
        qfx.rule(_two_relus, priority="high")  # type: ignore[arg-type]
    with pytest.raises(PatternError, match=r"@rule decorates a function \(m, g\), got 3"):
        qfx.rule(_two_relus)(3)  # type: ignore[arg-type]
    with pytest.raises(PatternError, match="@pattern decorates a function"):
        qfx.pattern(3)  # type: ignore[arg-type]


def _raises(match: Any) -> bool:
    raise KeyError("nothing")


def _says_yes(match: Any) -> Any:
    return "yes"


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (_raises, r"rule one_relu \(.*\): its guard _raises raised KeyError: 'nothing', at _1"),
        (_says_yes, r"rule one_relu \(.*\): its guard _says_yes returned 'yes', not a bool or a Reject, at _1"),
    ],
)
def test_a_guard_that_fails_is_named_with_its_rule_and_node(guard: Any, said: str) -> None:
    with pytest.raises(RuleError, match=said):
        qfx.rewrite(_relus(), [_once(guard)])
