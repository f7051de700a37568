"""Padding and resizing of codes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qfx.kernels import onednn

X = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pad_takes_every_mode(mode: str) -> None:
    found = onednn.pad(X, 0.1, 7, (1, 2, 0, 1), mode)
    assert torch.equal(found, F.pad(X.double(), (1, 2, 0, 1), mode=mode).to(torch.uint8))


@pytest.mark.parametrize(("value", "code"), [(None, 7), (0.0, 7), (0.5, 12), (-3.0, 0), (1e9, 255)])
def test_a_constant_is_padded_as_its_code(value: float | None, code: int) -> None:
    found = onednn.pad(X, torch.tensor(0.1), torch.tensor(7), (1, 1), value=value)
    assert torch.equal(found, F.pad(X, (1, 1), value=code))


@pytest.mark.parametrize("how", [{"size": (9, 4)}, {"scale_factor": (2.0, 3.0)}])
def test_resize_repeats_the_nearest(how: dict[str, tuple[float, float]]) -> None:
    assert torch.equal(onednn.resize(X, **how), F.interpolate(X.double(), **how).to(torch.uint8))
