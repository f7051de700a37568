"""The measuring protocol is the same on every run, keeps its split, and its network knows what it sees."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn


def loaded() -> ModuleType:
    """benchmarks/ is no installed package, and the root must not be importable: it would offer `import passes`."""
    path = Path(__file__).parents[1] / "benchmarks" / "protocol.py"
    spec = importlib.util.spec_from_file_location("qfx_benchmark_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


protocol = loaded()


def test_the_split_covers_every_picture_once() -> None:
    assert sorted(protocol.CALIBRATION + protocol.HELD_OUT) == sorted(protocol.pictures())


def test_crops_repeat_and_do_not_depend_on_how_many_are_asked_for() -> None:
    few, more = protocol.crops("rocket", 2), protocol.crops("rocket", 4)
    assert torch.equal(few, more[:2])
    assert not torch.equal(more[2], more[3])
    assert more.shape == (4, 3, 224, 224)
    assert more.amin() >= -127 / 128
    assert more.amax() <= 1


def test_crops_leave_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    protocol.crops("coffee", 1)
    assert torch.equal(before, torch.get_rng_state())


def test_held_out_crops_take_turns() -> None:
    held_out = protocol.held_out_crops(per_picture=2)
    assert held_out.is_contiguous(memory_format=torch.channels_last)
    for turn, name in enumerate(protocol.HELD_OUT):
        assert torch.equal(held_out[turn :: len(protocol.HELD_OUT)], protocol.crops(name, 2))


def test_calibration_batches_mix_the_pictures() -> None:
    first, second = protocol.calibration_batches(per_picture=2, batch=3)
    assert first.shape == second.shape == (3, 3, 224, 224)
    assert torch.equal(first, torch.stack([protocol.crops(name, 1)[0] for name in protocol.CALIBRATION]))


def test_there_are_at_least_200_held_out_crops() -> None:
    assert len(protocol.held_out_crops()) >= 200


def test_decibels_is_the_mean_over_inputs() -> None:
    reference = torch.tensor([[3.0, 4.0], [0.0, 10.0]])
    quantized = torch.tensor([[3.0, 4.5], [0.0, 9.0]])  # 25 / 0.25 and 100 / 1: both 20 dB
    assert protocol.decibels(reference, quantized) == pytest.approx(20)
    assert protocol.decibels(reference * 1e3, quantized * 1e3) == pytest.approx(20)
    assert protocol.decibels(reference, reference) == math.inf


def test_top1_agreement_counts_inputs() -> None:
    reference = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert protocol.top1_agreement(reference, reference + 1) == 1
    assert protocol.top1_agreement(reference, torch.tensor([[0.0, 9.0], [0.0, 9.0]])) == 0.5


@pytest.mark.parametrize("measure", [protocol.decibels, protocol.top1_agreement])
def test_shapes_that_would_broadcast_are_refused(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(1, 3\)"):
        measure(torch.zeros(2, 3), torch.zeros(1, 3))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return protocol.pretrained_efficientnet()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chelsea", "Egyptian Mau"), ("coffee", "espresso"), ("motorcycle", "moped"), ("flower", "daisy")],
)
def test_the_network_knows_what_it_sees(network: nn.Module, name: str, expected: str) -> None:
    answer = protocol.logits(network, protocol.centre_crop(protocol.pictures()[name]))
    assert protocol.class_names()[int(answer.argmax())] == expected


def test_best_float_says_the_same_without_batch_norm(network: nn.Module) -> None:
    inputs = protocol.crops("chelsea", 1)
    best = protocol.best_float(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in best.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(protocol.logits(best, inputs), protocol.logits(network, inputs), rtol=1e-3, atol=1e-3)
