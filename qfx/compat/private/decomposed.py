"""``fx._decomposed`` where PyTorch has none any more: importing it defines the operators."""

from __future__ import annotations

from typing import Any

from qfx.kernels.decomposed import library, registered

registered()


def __getattr__(name: str) -> Any:
    """``quantized_decomposed_lib``, the library that holds the operators.

    Raises:
        AttributeError: another name.
    """
    if name == "quantized_decomposed_lib":
        return library()
    raise AttributeError(f"there is no {name!r} among the decomposed operators")
