"""``torch.ao.quantization._learnable_fake_quantize``."""

from __future__ import annotations

from qfx.fake_quantize.learnable import LearnableFakeQuantize as _LearnableFakeQuantize

__all__ = ["_LearnableFakeQuantize"]
