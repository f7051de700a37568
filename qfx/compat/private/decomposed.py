"""``fx._decomposed`` where PyTorch has none any more: importing it defines the operators."""

from __future__ import annotations

from qfx.kernels.decomposed import library

quantized_decomposed_lib = library()
