"""The linear layer for training a model that will be quantized dynamically.

No ``from __future__ import annotations`` here: TorchScript reads the annotations of attributes as objects.
"""

from typing import Any

from qfx.errors import ConfigError
from qfx.nn.qat.linear import Linear as StaticLinear


class Linear(StaticLinear):
    """``nn.Linear`` whose weight is rounded in every forward, for dynamic quantization.

    Args: as ``qfx.nn.qat.Linear``; the configuration's activations keep no history.

    Raises:
        ConfigError: no ``qconfig``, or one whose activations are averaged over batches.
    """

    def _take_qconfig(self, qconfig: Any, device: Any = None) -> None:
        super()._take_qconfig(qconfig, device)
        activation = qconfig.activation()
        observer = getattr(activation, "activation_post_process", activation)
        if getattr(observer, "averaging_constant", None) != 1:
            raise ConfigError(
                "Dynamic QAT requires a memoryless observer.This means a MovingAverage observer with averaging "
                "constant equal to 1, as default_dynamic_qat_qconfig has"
            )
