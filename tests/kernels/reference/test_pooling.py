"""Pools, means, resizing: equal to torch's kernels in both layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.kernels import reference

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def codes(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    return torch.randint(0, 256, shape).to(torch.uint8).contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("args", [(3, 2, 1, 1, False), (3, 2, 1, 2, True), (2, 2), ((3, 2), (2, 1), (1, 0), 1, True)])
def test_max_pool(draw, wrap, layout, args) -> None:
    x = codes(2, 35, 13, 11, layout=layout)
    assert torch.equal(reference.max_pool(x, *args), F.max_pool2d(wrap(x, draw()), *args).int_repr())


def test_max_pool_of_other_dimensions(draw, wrap) -> None:
    for x, pool in ((codes(2, 5, 31), F.max_pool1d), (codes(2, 5, 9, 8, 7), F.max_pool3d)):
        assert torch.equal(reference.max_pool(x, 3, 2, 1), pool(wrap(x, draw()), 3, 2, 1).int_repr())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "args",
    [
        (3, 2, 1, False, True, None),
        (3, 2, 1, False, False, None),
        (2, 2, 0, True, True, None),
        (2, None, 0, False, True, None),
        (3, 2, 1, True, True, None),
        (3, 2, 1, True, False, None),
        (3, 1, 1, False, True, 6),
        (4, 2, 0, False, True, None),
        ((2, 4), (2, 3), (1, 0), True, False, None),
    ],
)
def test_avg_pool(draw, wrap, layout, args) -> None:
    for _ in range(4):
        x, q = codes(2, 64, 13, 11, layout=layout), draw()
        assert torch.equal(reference.avg_pool(x, q, *args), F.avg_pool2d(wrap(x, q), *args).int_repr()), q


def test_avg_pool_of_other_dimensions(draw, wrap) -> None:
    for _ in range(4):
        q = draw()
        x = codes(2, 5, 30)
        assert torch.equal(reference.avg_pool(x, q, 2, 2), F.avg_pool1d(wrap(x, q), 2, 2).int_repr())
        x = codes(2, 5, 8, 8, 6)
        assert torch.equal(reference.avg_pool(x, q, 2, 2), F.avg_pool3d(wrap(x, q), 2, 2).int_repr())


def test_channels_that_do_not_fill_a_vector_are_within_one_code(draw, wrap) -> None:
    """The last channels of channels-last input take the scalar loop: ties only, so at most one code, and rarely."""
    wrong = total = 0
    for _ in range(10):
        x, q = codes(2, 35, 12, 12, layout=torch.channels_last), draw()
        difference = reference.avg_pool(x, q, 2, 2).int() - F.avg_pool2d(wrap(x, q), 2, 2).int_repr().int()
        assert int(difference.abs().max()) <= 1
        assert int(difference[:, :32].abs().max()) == 0
        wrong, total = wrong + int((difference != 0).sum()), total + difference.numel()
    assert wrong <= 0.03 * total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, (3, 4), (20, 5), (None, 2)])
def test_adaptive_avg_pool(draw, wrap, layout, size) -> None:
    for _ in range(4):
        x, q = codes(2, 64, 13, 11, layout=layout), draw()
        expected = F.adaptive_avg_pool2d(wrap(x, q), size).int_repr()
        assert torch.equal(reference.adaptive_avg_pool(x, q, size), expected), q


def test_adaptive_avg_pool_of_other_dimensions(draw, wrap) -> None:
    for _ in range(4):
        q = draw()
        x = codes(2, 5, 30)
        assert torch.equal(reference.adaptive_avg_pool(x, q, 4), F.adaptive_avg_pool1d(wrap(x, q), 4).int_repr())
        x = codes(2, 5, 8, 7, 6)
        assert torch.equal(reference.adaptive_avg_pool(x, q, 3), F.adaptive_avg_pool3d(wrap(x, q), 3).int_repr())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", [(2, 3), (1,), (3,), (2,), (1, 2, 3), (-1,), None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_mean(draw, wrap, layout, dims, keepdim: bool) -> None:
    for _ in range(4):
        x, q = codes(2, 64, 12, 10, layout=layout), draw()
        if dims is None:
            if keepdim:
                return
            expected = torch.mean(wrap(x, q))
        else:
            expected = torch.mean(wrap(x, q), dims, keepdim)
        assert torch.equal(reference.mean(x, q, dims, keepdim), expected.int_repr()), q


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(26, 22), (7, 20)])
@pytest.mark.parametrize("exact", [False, True])
def test_nearest(draw, wrap, layout, size, exact: bool) -> None:
    x = codes(2, 35, 13, 11, layout=layout)
    expected = F.interpolate(wrap(x, draw()), size=size, mode="nearest-exact" if exact else "nearest").int_repr()
    assert torch.equal(reference.interpolate_nearest(x, size, exact=exact), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(26, 22), (7, 20), (5, 5), (1, 1), (13, 11)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear(draw, wrap, layout, size, align_corners: bool) -> None:
    for _ in range(3):
        x, q = codes(2, 64, 13, 11, layout=layout), draw()
        expected = F.interpolate(wrap(x, q), size=size, mode="bilinear", align_corners=align_corners).int_repr()
        assert torch.equal(reference.interpolate_bilinear(x, q, size, align_corners=align_corners), expected), q


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [2.0, 1.7])
def test_bilinear_by_factor(draw, wrap, layout, factor: float) -> None:
    x, q = codes(2, 64, 13, 11, layout=layout), draw()
    expected = F.interpolate(wrap(x, q), scale_factor=factor, mode="bilinear").int_repr()
    size = (int(13 * factor), int(11 * factor))
    assert torch.equal(reference.interpolate_bilinear(x, q, size, scales=(factor, factor)), expected), q
