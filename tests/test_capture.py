from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qfx.capture import capture
from qfx.errors import CaptureError, ModelStateError
from qfx.graph.provenance import origins


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line an error must name
            return self.inner(x)
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branching = Branching()
        self.last = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.branching(x)) + 1


def test_the_model_is_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()
    gm = capture(model)
    gm.get_submodule("0").weight.data.zero_()
    assert model[0].weight.abs().sum() > 0
    assert gm.get_submodule("0") is not model[0]


def test_nodes_know_their_source_line() -> None:
    model = Outer().eval()
    gm = capture(model, skipped_names=["branching"])
    add = next(n for n in gm.graph.nodes if n.name == "add")
    assert origins(add)[0].line.startswith(__file__)
    last = next(n for n in gm.graph.nodes if n.name == "last")
    assert origins(last)[0].module_path == "last"


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.Dropout(0.1)])
def test_training_mode_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelStateError, match=r"training mode: 0 would still .* Call model.eval\(\)"):
        capture(nn.Sequential(layer))
    assert capture(nn.Sequential(layer).eval()) is not None


def test_an_untraceable_model_says_where_and_what_to_do() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Outer().eval())
    message = str(caught.value)
    branch = next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "if x.sum() > 0" in line)
    assert f"{__file__}:{branch}" in message
    assert "set_non_traceable_module_names" in message


def test_untraceable_parts_can_stay_whole() -> None:
    for how in ({"skipped_names": ["branching"]}, {"skipped_classes": [Branching]}):
        model = Outer().eval()
        gm = capture(model, **how)
        x = torch.randn(3, 2)
        torch.testing.assert_close(gm(x), model(x))
        assert any(n.op == "call_module" and n.target == "branching" for n in gm.graph.nodes)


def test_annotations_nobody_evaluated_are_dropped() -> None:
    class Annotated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # strings, in a module that postpones annotations
            return x + 1

    assert isinstance(Annotated.forward.__annotations__["x"], str)
    assert {node.type for node in capture(Annotated()).graph.nodes} == {None}
