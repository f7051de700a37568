"""Optional arguments, ``*args`` and ``**kwargs`` of a model."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import qfx
from qfx.errors import CaptureError, ConfigError

V = torch.randn(4, 8)
MAPPING = qfx.get_default_qconfig_mapping("x86")


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)


class Optional(Layers):
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        x = self.a(x)
        return x if y is None else x + self.b(y)


class Scaled(Layers):
    def forward(self, x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        return self.a(x) * scale


class Switched(Layers):
    def forward(self, x: torch.Tensor, *, first: bool = True) -> torch.Tensor:
        return self.a(x) if first else self.b(x)


class Several(Layers):
    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return self.a(xs[0]) + self.b(xs[1])


class Named(Layers):
    def forward(self, x: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(others["y"])


def converted(model: nn.Module, *example: object, **more: torch.Tensor) -> qfx.QuantizedGraphModule:
    prepared = qfx.prepare_fx(model.eval(), MAPPING, example)
    prepared(*example, **more)
    gm = qfx.convert_fx(prepared)
    found, expected = gm(*example, **more).detach(), model(*example, **more).detach()
    assert float((found - expected).pow(2).sum() / expected.pow(2).sum()) < 1e-3
    return gm


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*instance-level annotations:UserWarning")  # of torch's own GraphModule
@pytest.mark.parametrize("example", [(V,), (V, None)])
def test_an_absent_argument_is_absent_in_the_graph(example: tuple[object, ...]) -> None:
    gm = converted(Optional(), *example)
    assert [str(n.target) for n in gm.graph.nodes if n.op == "call_module"] == ["a"]
    assert torch.equal(gm(V), gm(V, None))
    for copied in (gm, pickle.loads(pickle.dumps(gm))):
        with pytest.raises(AssertionError, match="prepared for y=None; give another value among the example_inputs"):
            copied(V, V)
    assert torch.equal(torch.jit.script(gm)(V), gm(V))


def test_an_argument_that_is_given_is_quantized() -> None:
    assert len(converted(Optional(), V, V).plan["kernels"]) == 3


def test_a_default_is_a_number_of_the_graph() -> None:
    gm = converted(Scaled(), V)
    assert set(gm.plan["kernels"].values()) == {"quantized.linear (fbgemm)", "quantized.mul"}
    with pytest.raises(AssertionError, match=r"prepared for scale=2\.0"):
        gm(V, 3.0)


def test_a_default_may_decide_what_is_traced() -> None:
    gm = converted(Switched(), V)
    assert [str(n.target) for n in gm.graph.nodes if n.op == "call_module"] == ["a"]
    with pytest.raises(AssertionError, match="prepared for first=True"):
        gm(V, first=False)


def test_arguments_without_names_are_taken_one_by_one() -> None:
    assert len(converted(Several(), V, V).plan["kernels"]) == 3


def test_arguments_of_any_name_stay_float() -> None:
    gm = converted(Named(), V, y=V)
    assert list(gm.plan["kernels"].values()) == ["quantized.linear (fbgemm)"]
    assert "is no float tensor" in gm.plan["float"]["add"]


def test_a_loop_over_arguments_is_refused_with_the_way_out() -> None:
    class Summed(Layers):
        def forward(self, *xs: torch.Tensor) -> torch.Tensor:
            return sum(self.a(x) for x in xs)

    with pytest.raises(CaptureError, match=r"cannot be iterated.*Move that part into a submodule"):
        qfx.prepare_fx(Summed().eval(), MAPPING, (V, V))


def test_a_traced_model_keeps_its_optional_argument() -> None:
    gm = torch.fx.symbolic_trace(Scaled().eval())
    prepared = qfx.prepare_fx(gm, MAPPING, (V,))
    prepared(V)
    int8 = qfx.convert_fx(prepared)
    assert int8.plan["float"]["mul"] == "scale is no float tensor"
    assert torch.equal(int8(V, 3.0), int8(V, 1.0) * 3)


class Optionals(Layers):
    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        twice: bool = False,
        *,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        y = self.a(x)
        if twice:
            y = self.a(y)
        if mask is not None:
            y = y + mask
        return y if bias is None else y + bias


def test_examples_have_names_where_they_come_in_a_dictionary() -> None:
    model, x = Optionals().eval(), V
    gm = qfx.prepare_fx(model, MAPPING, {"bias": x, "x": x})
    assert [n.target for n in gm.graph.nodes if n.op == "call_module" and n.target == "a"] == ["a"]
    torch.testing.assert_close(gm(x, bias=x), model(x, bias=x))
    with pytest.raises(AssertionError, match="prepared for mask=None"):
        gm(x, x, bias=x)
    assert qfx.prepare_fx(model, MAPPING, {"x": x, "mask": x}).code == qfx.prepare_fx(model, MAPPING, (x, x)).code
    assert qfx.fuse_fx(model, example_inputs={"x": x}).code == qfx.fuse_fx(model, example_inputs=(x,)).code
    with pytest.raises(ConfigError, match=r"names y, and Optionals.forward takes x, mask, twice, bias"):
        qfx.prepare_fx(model, MAPPING, {"x": x, "y": x})


def test_without_examples_every_input_is_a_float_tensor() -> None:
    prepared = qfx.prepare_fx(Scaled().eval(), MAPPING, None)
    prepared(V, 2.0)
    assert qfx.convert_fx(prepared)(V, 2.0).shape == V.shape
    trained = qfx.prepare_qat_fx(Switchless().train(), qfx.get_default_qat_qconfig_mapping("x86"), None)
    trained(V)
    assert qfx.summary(qfx.convert_fx(trained, strict=True)).coverage_nodes == 1.0


class Switchless(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))  # type: ignore[no-any-return]
