"""Cross-layer equalization of pairs, and learned fake quantization: the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qfx import observers
from qfx.compat.private import layer_equalization
from qfx.fake_quantize.learnable import LearnableFakeQuantize

theirs = pytest.importorskip("torch.ao.quantization._equalize")
learnable = pytest.importorskip("torch.ao.quantization._learnable_fake_quantize")
their_observers = pytest.importorskip("torch.ao.quantization.observer")


def test_equalized_weights() -> None:
    models = [nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 2, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for module, model in zip((theirs, layer_equalization), models, strict=True):
        module.equalize(model, [["0", "1", "2"]], 1e-6)
    # Iterated until nothing changes, so the last bits are of another order of products
    torch.testing.assert_close(*(dict(model.named_parameters()) for model in models), rtol=1e-3, atol=1e-4)


CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("MovingAverageMinMaxObserver", {}),
    ("MovingAverageMinMaxObserver", {"scale": 0.1, "zero_point": 3.2}),
    (
        "MovingAverageMinMaxObserver",
        {"quant_min": -8, "quant_max": 7, "dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric},
    ),
    *(
        (
            "MovingAveragePerChannelMinMaxObserver",
            {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8, "qscheme": scheme, "channel_len": 5},
        )
        for scheme in (torch.per_channel_affine, torch.per_channel_symmetric)
    ),
]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("observer", "told"), CONFIGS)
def test_learned_scales(observer: str, told: dict[str, Any], scaled: bool) -> None:
    other = learnable._LearnableFakeQuantize(getattr(their_observers, observer), use_grad_scaling=scaled, **told)
    mine = LearnableFakeQuantize(getattr(observers, observer), use_grad_scaling=scaled, **told)
    for mode in ("", "enable_static_observation", "enable_static_estimate", "enable_param_learning"):
        x, grad = torch.randn(5, 6) * 2, torch.randn(5, 6)
        found = []
        for module in (mine, other):
            if mode:
                getattr(module, mode)()
            given = x.clone().requires_grad_()
            y = module(given)
            y.backward(grad)
            learned = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
            found.append((y, given.grad, dict(module.state_dict()), module.calculate_qparams(), learned))
        torch.testing.assert_close(*found, rtol=0, atol=0)
