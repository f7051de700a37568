"""Fold a batch norm that uses its running statistics into the weight and bias of what feeds it.

y = gamma (w x + b - mean) / sqrt(var + eps) + beta is again w' x + b' with w' = w gamma / sqrt(var + eps) along the
output channel, b' = (b - mean) gamma / sqrt(var + eps) + beta (Jacob et al., 2018, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qfx.errors import ConfigError


def fold(
    w: torch.Tensor,
    b: torch.Tensor | None,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    mean: torch.Tensor,
    var: torch.Tensor,
    eps: float,
    *,
    transposed: bool = False,
    groups: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias with the batch norm in them.

    Args:
        w: weight, output channels first; (in, out / groups, ...) when `transposed`.
        b: bias (out,), or None for zero.
        gamma: scale of the batch norm (out,), or None for one.
        beta: shift (out,), or None for zero.
        mean: running mean (out,).
        var: running variance (out,).
        eps: added to the variance.
        transposed: the layout of a transposed convolution.
        groups: groups of a transposed convolution; its output channels are spread over them.

    Returns:
        (weight, bias), in the weight's dtype. They are rounded as PyTorch's own folding rounds them, bit for bit.
    """
    inverse = torch.rsqrt(var + eps)
    factor = inverse if gamma is None else inverse * gamma
    shift = (torch.zeros_like(mean) if b is None else b) - mean
    # Convolutions multiply by the two one after the other, which rounds differently.
    bias = shift * factor if gamma is None or w.dim() == 2 else shift * inverse * gamma
    if beta is not None:
        bias = bias + beta
    if transposed:
        # (in, out/groups, ...): channel c of group g is output g * out/groups + c.
        per_group = factor.reshape(groups, 1, -1).expand(groups, w.shape[0] // groups, -1).reshape(w.shape[0], -1)
        weight = w * per_group.reshape(*per_group.shape, *[1] * (w.dim() - 2))
    else:
        weight = w * factor.reshape(-1, *[1] * (w.dim() - 1))
    return weight.detach().to(w.dtype), bias.detach().to(w.dtype)


def fold_modules(weighted: Any, bn: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution, transposed convolution or linear layer with a batch norm module in them.

    Raises:
        ConfigError: the batch norm has no running statistics.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise ConfigError(
            f"the {type(bn).__name__} behind this {type(weighted).__name__} has no running statistics to fold; "
            "make it with track_running_stats=True"
        )
    return fold(
        weighted.weight,
        weighted.bias,
        bn.weight,
        bn.bias,
        bn.running_mean,
        bn.running_var,
        bn.eps,
        transposed=isinstance(weighted, nn.modules.conv._ConvTransposeNd),
        groups=getattr(weighted, "groups", 1),
    )
