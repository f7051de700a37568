"""Where kernels add pairs of products in 16 bits, which 8-bit activations times 8-bit weights can overflow."""

from __future__ import annotations

from typing import Literal

from qfx.kernels.engines import LayerFacts

Sums = Literal["exact", "pairs without VNNI", "pairs"]
"""``exact`` on every CPU; in 16-bit pairs on CPUs without VNNI; in 16-bit pairs on every CPU."""


def sums(engine: str, layer: LayerFacts) -> Sums:
    """How an engine adds the products of a layer, on the CPUs it was probed on (docs/engines.md).

    Args:
        engine: ``"fbgemm"``, ``"onednn"`` or ``"qnnpack"``.
        layer: what is known of the layer.

    Example:
        >>> sums("qnnpack", LayerFacts("linear", 64, 64)), sums("fbgemm", LayerFacts("linear", 64, 64))
        ('exact', 'pairs without VNNI')
    """
    if engine == "qnnpack":
        return "exact"  # it widens both factors to 16 bits first
    if engine == "onednn" and layer.depthwise and layer.op in ("conv1d", "conv2d"):
        return "exact"
    return "pairs" if engine == "fbgemm" and layer.fbgemm_depthwise else "pairs without VNNI"
