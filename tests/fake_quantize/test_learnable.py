from __future__ import annotations

from typing import Any

import pytest
import torch

from qfx.errors import ConfigError
from qfx.fake_quantize.learnable import LearnableFakeQuantize
from qfx.observers import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver


def made(**told: Any) -> LearnableFakeQuantize:
    return LearnableFakeQuantize(MovingAverageMinMaxObserver.with_args(averaging_constant=1.0), **told)


def test_it_learns_a_scale_that_rounds_better() -> None:
    """Four levels for normal numbers: the range an observer saw is far too wide."""
    x = torch.randn(4000)
    learned = made(quant_min=-2, quant_max=1, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    before = float((learned(x) - x).detach().square().mean())
    learned.enable_param_learning()
    optimizer = torch.optim.SGD([learned.scale], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        (learned(x) - x).square().mean().backward()
        optimizer.step()
    assert float((learned(x) - x).detach().square().mean()) < before / 2


def test_switches() -> None:
    module, x = made(), torch.randn(10)
    assert not torch.equal(module(x), x)
    assert torch.equal(module.enable_static_observation()(x), x)
    scale = module.scale.detach().clone()
    module.enable_param_learning()
    module(x * 100)
    assert torch.equal(module.scale, scale)
    assert module.scale.requires_grad
    module.enable_observer()
    module(x * 100)
    assert module.scale > scale


def test_symmetric_codes_have_no_zero_point() -> None:
    module = made(quant_min=-8, quant_max=7, zero_point=3.0, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    module.enable_param_learning()(torch.randn(4))
    assert module.calculate_qparams()[1].tolist() == [0]


def test_scaled_gradients() -> None:
    plain, scaled = made().enable_param_learning(), made(use_grad_scaling=True).enable_param_learning()
    x = torch.rand(16) * 9
    for module in (plain, scaled):
        module(x).sum().backward()
    torch.testing.assert_close(scaled.scale.grad, plain.scale.grad / (16 * 255) ** 0.5)


def test_what_it_has_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    made(scale=0.5).observe_quant_params()
    assert "Scale: tensor([0.5000])" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"channel_len": 0}, "Channel size must be a positive integer"),
        ({"quant_min": 5, "quant_max": 3}, "strictly less"),
        ({"quant_max": 300}, "quant_max out of bound: 300 is no code of torch.quint8"),
    ],
)
def test_what_cannot_be_is_refused(told: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        made(**told)


def test_channels_nobody_counted_are_refused() -> None:
    observer = MovingAveragePerChannelMinMaxObserver.with_args(dtype=torch.qint8)
    module = LearnableFakeQuantize(observer, -128, 127)
    with pytest.raises(ConfigError, match="has 1 scales and saw 3 channels; say how many there are with channel_len"):
        module(torch.randn(3, 4))
