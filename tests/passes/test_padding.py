from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qfx
from qfx.passes.fuse.padding import FOLD_PADDING


class Padded(nn.Module):
    def __init__(self, conv: nn.Module, pad: Callable[[torch.Tensor], torch.Tensor], spelling: str) -> None:
        super().__init__()
        self.conv, self.pad, self.spelling = conv, pad, spelling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pad(x)
        if self.spelling == "module":
            return self.conv(x)
        c = self.conv
        dims = len(c.stride)
        conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
        return conv(x, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups)


def folded(model: nn.Module) -> tuple[torch.fx.GraphModule, Any]:
    out = qfx.rewrite(torch.fx.symbolic_trace(model.eval()), FOLD_PADDING)
    return out, out.meta["qfx_logs"][0].rules["fold_padding"]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from([1, 4]),
    st.sampled_from(["module", "function"]),
)
def test_every_padding_folds(
    dims: int, amounts: list[int], kernel: int, stride: int, own: int, groups: int, spelling: str
) -> None:
    conv = getattr(nn, f"Conv{dims}d")(4, 4, kernel, stride=stride, padding=own, groups=groups)
    pad = tuple(amounts[: 2 * dims])
    model, x = Padded(conv, lambda x: F.pad(x, pad), spelling), torch.randn(2, 4, *[6, 5, 4][:dims])
    out, log = folded(model)
    assert log.applied == 1
    assert "pad(" not in out.code
    torch.testing.assert_close(out(x), model(x))


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 0, 1)), nn.ConstantPad2d(1, 0.0)])
def test_modules_that_pad(pad: nn.Module) -> None:
    model, x = nn.Sequential(pad, nn.Conv2d(4, 4, 3, stride=2)), torch.randn(2, 4, 8, 8)
    out, log = folded(model)
    assert log.applied == 1
    torch.testing.assert_close(out(x), model(x))
    assert [name for name, _ in out.named_children()] == ["1"]
    assert out.get_submodule("1").kernel_size == tuple(out.get_submodule("1").weight.shape[2:])


@pytest.mark.parametrize(
    ("pad", "conv", "why"),
    [
        (lambda x: F.pad(x, (1, 1), value=1.0), nn.Conv2d(4, 4, 3), "does not pad with zeros"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), nn.Conv2d(4, 4, 3), "does not pad with zeros"),
        (lambda x: F.pad(x, (-1, 1)), nn.Conv2d(4, 4, 3), "pads by (-1, 1)"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 2)), nn.Conv2d(6, 4, 3), "pads channels or batch"),
        (lambda x: F.pad(x, (1, 1)), nn.Conv2d(4, 4, 3, padding="same"), "pads by 'same'"),
        (lambda x: F.pad(x, (0, 1)), nn.Conv2d(4, 4, 3, dilation=2), "is dilated"),
    ],
)
def test_what_is_left_alone_and_why(pad: Any, conv: nn.Module, why: str) -> None:
    model, x = Padded(conv, pad, "module"), torch.randn(1, 4, 9, 9)
    out, log = folded(model)
    assert log.applied == 0
    assert why in next(iter(log.misses.values()))
    assert torch.equal(out(x), model(x))


def test_a_shared_weight_is_not_extended() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(F.pad(x, (0, 2, 0, 2))) + self.conv(F.pad(x, (1, 1, 1, 1)))

    model, x = Shared(), torch.randn(1, 4, 6, 6)
    out, log = folded(model)
    assert log.applied == 1  # the even one only: it changes no weight
    assert "is read 2 times" in next(iter(log.misses.values()))
    torch.testing.assert_close(out(x), model(x))
