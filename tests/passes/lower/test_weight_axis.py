"""A weight's scales belong to output channels: along any other axis no kernel gets them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.kernels.packing import PackedSpec

KINDS = ("Linear", *(f"{kind}{n}d" for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)))
FUNCTIONS = {
    "Linear": F.linear,
    **{f"Conv{n}d": getattr(F, f"conv{n}d") for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": getattr(F, f"conv_transpose{n}d") for n in (1, 2, 3)},
}
ACTIVATION = qfx.get_default_qconfig("x86").activation


class Called(nn.Module):
    """The layer as a function of the module's own parameters."""

    def __init__(self, kind: str, layer: Any) -> None:
        super().__init__()
        self.kind, self.weight, self.bias = kind, layer.weight, layer.bias
        self.groups = getattr(layer, "groups", 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.groups > 1:
            return FUNCTIONS[self.kind](x, self.weight, self.bias, groups=self.groups)
        return FUNCTIONS[self.kind](x, self.weight, self.bias)


def layer(kind: str, into: int, out: int, groups: int = 1) -> tuple[nn.Module, torch.Tensor]:
    if kind == "Linear":
        made: Any = nn.Linear(into, out)
        x = torch.randn(4, into)
    else:
        made = getattr(nn, kind)(into, out, 3, groups=groups)
        x = torch.randn(4, into, *[6] * int(kind[-2]))
    with torch.no_grad():  # channels of very different sizes: scales of the wrong channels are far off
        made.weight *= torch.logspace(-1, 1, made.weight.shape[0]).reshape(-1, *[1] * (made.weight.dim() - 1))
        made.weight *= torch.logspace(-1, 1, made.weight.shape[1]).reshape(1, -1, *[1] * (made.weight.dim() - 2))
    return made, x


def mapping(axis: int = 0) -> qfx.QConfigMapping:
    weight = qfx.PerChannelMinMaxObserver.with_args(
        ch_axis=axis, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )
    return qfx.QConfigMapping().set_global(qfx.QConfig(activation=ACTIVATION, weight=weight))


def converted(kind: str, axis: int, target: str, spelled: str, into: int, out: int, groups: int = 1) -> Any:
    """The converted model, and how far it is from its reference graph, in codes."""
    made, x = layer(kind, into, out, groups)
    model = nn.Sequential(made) if spelled == "module" else Called(kind, made)
    prepared = qfx.prepare_fx(model.eval(), mapping(axis), (x,))
    prepared(x)
    gm, reference = qfx.convert_fx(prepared, target=target), qfx.convert_to_reference_fx(prepared)
    scale = next(
        float(v) for k, v in reversed(dict(reference.named_buffers()).items()) if "scale" in k and v.dim() == 0
    )
    return gm, float((gm(x) - reference(x)).abs().max()) / scale


@pytest.mark.parametrize("spelled", ["module", "function"])
@pytest.mark.parametrize("target", ["native", "onednn"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("channels", [(8, 8), (8, 16), (16, 8)])
def test_the_result_is_the_references_for_every_axis(
    kind: str, axis: int, target: str, spelled: str, channels: tuple[int, int]
) -> None:
    gm, codes = converted(kind, axis, target, spelled, *channels)
    assert codes < 1.5  # a code of rounding
    transposed, lowered = "Transpose" in kind, bool(gm.plan["kernels"])
    if not transposed:
        assert lowered is (axis == 0)
    else:
        # Axis 0 is what an observer has by default, and is taken as the output channels.
        assert lowered is (target == "native" and kind != "ConvTranspose3d")
    if not lowered:
        (reasons,) = gm.plan["unlowered"].values()
        if not transposed:
            assert "lie along axis 1, its output channels along axis 0; use a weight observer with ch_axis=0" in str(
                reasons
            )
        elif target == "native":
            assert "qnnpack gives wrong numbers for 3d transposed convolutions. Give the layer a weight" in str(reasons)


def test_a_grouped_transposed_weight_stays_in_float_and_says_what_to_configure() -> None:
    gm, codes = converted("ConvTranspose2d", 0, "native", "module", 8, 16, 2)
    assert codes < 1.5
    (reasons,) = gm.plan["unlowered"].values()
    assert "qnnpack reads beyond the scales" in str(reasons)
    assert "Give the layer a weight observer per tensor (default_weight_observer)" in str(reasons)


def test_an_axis_chosen_for_a_transposed_weight_stays() -> None:
    made, x = layer("ConvTranspose2d", 4, 6)
    prepared = qfx.prepare_fx(nn.Sequential(made).eval(), mapping(2), (x,))
    prepared(x)
    gm = qfx.convert_fx(prepared)
    assert not gm.plan["kernels"]
    assert "lie along axis 2, its output channels along axis 1" in str(gm.plan["unlowered"])


@pytest.mark.parametrize(("axis", "transposed"), [(1, False), (0, True)])
def test_no_engine_packs_scales_of_another_axis(axis: int, transposed: bool) -> None:
    scales = torch.linspace(0.01, 0.03, 8, dtype=torch.double)
    weight = torch.quantize_per_channel(torch.randn(8, 8, 3), scales, torch.zeros(8).long(), axis, torch.qint8)
    spec = PackedSpec("conv1d", weight, None, (1,), (0,), (0,), (1,), transposed=transposed, engine="qnnpack")
    with pytest.raises(qfx.errors.KernelError, match=f"along axis {axis}, its output channels along axis {1 - axis}"):
        spec.pack()
