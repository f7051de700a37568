"""Settings every test shares."""

from __future__ import annotations

import warnings

import pytest
import torch

# Two workers share two cores; one thread each is faster than two that wait for one another.
torch.set_num_threads(1)

# torch warns once a process, from C++, when a quantized dtype is first used. Warnings are errors in tests, so whichever
# test came first would fail: use one here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _engine() -> object:
    """A test that sets the quantized engine does not set it for the next one."""
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before
