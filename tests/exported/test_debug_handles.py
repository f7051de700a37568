from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import qfx
from qfx.errors import ConfigError

KEY = "numeric_debug_handle"


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x.cos() - 1, (x,)).relu()  # type: ignore[no-any-return]


def program() -> Any:
    return torch.export.export(Branches(), (torch.ones(3),))


def nodes(gm: GraphModule) -> list[torch.fx.Node]:
    return [node for module in gm.modules() if isinstance(module, GraphModule) for node in module.graph.nodes]


@pytest.mark.parametrize("as_program", [False, True])
def test_every_node_gets_a_number_of_its_own(as_program: bool) -> None:
    made = program()
    given = made if as_program else made.module()
    gm = made.graph_module if as_program else given
    assert qfx.generate_numeric_debug_handle(given) is None  # type: ignore[func-returns-value]
    numbered = [node for node in nodes(gm) if node.op not in ("placeholder", "output")]
    handles = [node.meta[KEY] for node in numbered]
    assert sorted(handles) == list(range(len(numbered)))
    assert {"sin", "cos", "relu"} <= {node.name for node in numbered}
    assert not any(KEY in node.meta for node in nodes(gm) if node.op in ("placeholder", "output"))


def test_numbers_stay() -> None:
    gm = program().module()
    qfx.generate_numeric_debug_handle(gm)
    before = {node: node.meta[KEY] for node in nodes(gm) if KEY in node.meta}
    (relu,) = [node for node in before if node.name == "relu"]
    with gm.graph.inserting_after(relu):
        new = gm.graph.call_function(torch.ops.aten.neg.default, (relu,))
    qfx.generate_numeric_debug_handle(gm)
    assert all(node.meta[KEY] == number for node, number in before.items())
    assert new.meta[KEY] == len(before)


def test_refused() -> None:
    gm = program().module()
    first, second = [node for node in gm.graph.nodes if node.op == "call_function"][:2]
    first.meta[KEY] = second.meta[KEY] = 7
    with pytest.raises(ConfigError, match=f"{first.name} and {second.name} both have numeric_debug_handle 7"):
        qfx.generate_numeric_debug_handle(gm)
    with pytest.raises(ConfigError, match="got ReLU"):
        qfx.generate_numeric_debug_handle(nn.ReLU())  # type: ignore[arg-type]
