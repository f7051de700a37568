"""Multiply-accumulates are what torch's flop counter finds on the float model, however a product is spelled or lowered.

The flop counter counts a multiplication and an addition as two, and a whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx

BATCH = 3
TARGETS = ("native", "onednn", "reference")


class Function(nn.Module):
    """A layer of ``torch.nn`` spelled as a function."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.call = getattr(F, _function_name(layer))
        names = ("stride", "padding", "dilation", "groups", "output_padding")
        transposed = "Transpose" in type(layer).__name__
        self.attrs = {n: getattr(layer, n) for n in names if hasattr(layer, n) and (transposed or n != names[-1])}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x, self.weight, self.bias, **self.attrs)


def _function_name(layer: nn.Module) -> str:
    name = type(layer).__name__
    return "linear" if name == "Linear" else name.lower().replace("convtranspose", "conv_transpose")


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (4, 11)),
    "conv1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=2), (4, 11)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), (4, 8, 7)),
    "conv2d stride": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (4, 8, 7)),
    "conv2d groups": (lambda: nn.Conv2d(4, 8, 3, groups=2, padding="valid"), (4, 8, 7)),
    "conv2d depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1), (8, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, padding=1), (4, 4, 5, 6)),
    "conv3d groups": (lambda: nn.Conv3d(4, 6, 2, groups=2, stride=2), (4, 4, 5, 6)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 8, 2, stride=2), (4, 7)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 8, 2, stride=2), (4, 5, 5)),
    "conv_transpose2d groups": (
        lambda: nn.ConvTranspose2d(4, 8, 3, stride=(3, 2), padding=(0, 1), output_padding=(2, 1), groups=2, dilation=2),
        (4, 5, 6),
    ),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(2, 4, 2, stride=2, output_padding=1), (2, 3, 4, 5)),
    "linear 2d": (lambda: nn.Linear(8, 16), (8,)),
    "linear 3d": (lambda: nn.Linear(8, 16), (10, 8)),
    "linear 4d": (lambda: nn.Linear(8, 16), (2, 5, 8)),
}


@pytest.mark.parametrize("spelling", ["module", "function", "exported"])
@pytest.mark.parametrize("case", LAYERS)
def test_layers_on_every_target(
    case: str, spelling: str, between: Any, calibrated: Any, macs: Any, torchs_count: Any
) -> None:
    make, shape = LAYERS[case]
    x = torch.randn(BATCH, *shape)
    model = between(Function(make()) if spelling == "function" else make()).eval()
    expected = torchs_count(model, x)
    if spelling == "exported":
        model = torch.export.export(model, (x,)).module()
    prepared = calibrated(model, x)
    assert list(macs(prepared).values()) == [expected]
    for target in TARGETS:
        int8 = qfx.convert_fx(prepared, target=target)
        assert list(macs(int8).values()) == [expected], target
        summary = qfx.summary(int8)
        assert summary.unknown_macs == 0
        transposed = "transpose" in case
        if transposed and spelling == "exported" and target == "native":
            continue  # the mapping's entries for transposed layers do not know what export calls them
        lowered = target == "native" or (target == "onednn" and not transposed)
        assert summary.coverage_macs == float(lowered)


@pytest.mark.parametrize("spelling", ["module", "function"])
@pytest.mark.parametrize("neighbour", ["first", "last"])
@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_left_float_beside_observed_values(
    case: str, neighbour: str, spelling: str, between: Any, calibrated: Any, macs: Any, torchs_count: Any
) -> None:
    """Its input or its output was seen; the other shape follows."""
    make, shape = LAYERS[case]
    x = torch.randn(BATCH, *shape)
    model = between(Function(make()) if spelling == "function" else make())
    mapping = qfx.get_default_qconfig_mapping("x86").set_module_name("layer", None)
    mapping.set_module_name("last" if neighbour == "first" else "first", None)
    int8 = qfx.convert_fx(calibrated(model, x, mapping=mapping), target="native")
    assert list(macs(int8).values()) == [torchs_count(model, x)]
    assert qfx.summary(int8).coverage_macs == 0.0


def test_the_numbers_by_hand(between: Any, calibrated: Any, macs: Any) -> None:
    linear = calibrated(between(nn.Linear(8, 16)), torch.randn(2, 10, 8))
    assert macs(qfx.convert_fx(linear)) == {"layer": 10 * 8 * 16}
    transposed = calibrated(between(nn.ConvTranspose2d(4, 8, 2, stride=2)), torch.randn(2, 4, 5, 5))
    assert macs(qfx.convert_fx(transposed)) == {"layer": 5 * 5 * 4 * 8 * 2 * 2}


def test_a_fused_layer_is_counted_once(calibrated: Any, macs: Any, torchs_count: Any) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten(), nn.Linear(8 * 16, 4))
    x = torch.randn(BATCH, 4, 6, 6)
    prepared = calibrated(model, x)
    expected = [8 * 4 * 9 * 16, 8 * 16 * 4]
    assert sum(expected) == torchs_count(model, x)
    assert list(macs(prepared).values()) == expected
    for target in TARGETS:
        assert list(macs(qfx.convert_fx(prepared, target=target)).values()) == expected


# -- samples ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layer", "shape", "each"),
    [
        (nn.Conv2d(4, 6, 3), (4, 8, 8), 36 * 6 * 4 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 8, 8), 64 * 6 * 4 * 4),
        (nn.Linear(8, 4), (8,), 32),
    ],
    ids=["conv2d", "conv_transpose2d", "linear"],
)
def test_a_call_without_a_batch_is_one_sample(
    layer: nn.Module, shape: tuple[int, ...], each: int, between: Any, calibrated: Any, macs: Any
) -> None:
    prepared = calibrated(between(layer), torch.randn(*shape))
    assert list(macs(prepared).values()) == [each]
    assert list(macs(qfx.convert_fx(prepared, target="reference")).values()) == [each]


def test_the_batch_is_the_inputs_even_where_the_layers_fold_it(calibrated: Any, macs: Any) -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x.reshape(-1, 8))).reshape(-1, 4, 8)

    x = torch.randn(BATCH, 4, 8)
    assert list(macs(qfx.convert_fx(calibrated(Windows(), x))).values()) == [4 * 64, 4 * 64]


def test_the_last_batch_counts(between: Any, calibrated: Any, macs: Any) -> None:
    prepared = calibrated(between(nn.Linear(8, 4)), torch.randn(2, 8))
    prepared(torch.randn(7, 8))
    assert list(macs(qfx.convert_fx(prepared)).values()) == [32]
