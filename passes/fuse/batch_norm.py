"""Fold a batch norm in eval mode into the weight and bias of what feeds it.

Arithmetic: y = gamma (w x + b - mean) / sqrt(var + eps) + beta is again w' x + b' with w' = w gamma / sqrt(var + eps)
along the output channel, b' = (b - mean) gamma / sqrt(var + eps) + beta (Jacob et al., 2018, section 3.2).
"""

from __future__ import annotations

import torch

from qfx.graph import Param
from qfx.ops import Op
from qfx.passes.annotate.choices import configured_as
from qfx.passes.rewriter import NewParam, Rewriter
from qfx.passes.rule import Rule, owned, rule
from qfx.patterns import Match
from qfx.patterns.catalogue.weighted import TRANSPOSED, WEIGHTED, weighted_bn
from qfx.reject import Reject


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
        (weight, bias), in the weight's dtype.
    """
    factor = torch.rsqrt(var + eps)
    if gamma is not None:
        factor = factor * gamma
    shift = (torch.zeros_like(mean) if b is None else b) - mean
    bias = shift * factor if beta is None else shift * factor + beta
    if transposed:
        # (in, out/groups, ...): channel c of group g is output g * out/groups + c.
        per_group = factor.reshape(groups, 1, -1).expand(groups, w.shape[0] // groups, -1).reshape(w.shape[0], -1)
        weight = w * per_group.reshape(*per_group.shape, *[1] * (w.dim() - 2))
    else:
        weight = w * factor.reshape(-1, *[1] * (w.dim() - 1))
    return weight.detach().to(w.dtype), bias.detach().to(w.dtype)


def _constant(*names: str):  # type: ignore[no-untyped-def]
    def constant(m: Match) -> bool | Reject:
        for name in names:
            value = getattr(m, name)
            if value is not None and not isinstance(value, Param):
                return Reject(f"{name} is computed ({value!r}), not a constant", m.anchor)
        return True

    return constant


def _rule(op: Op) -> Rule:
    transposed = op in TRANSPOSED

    # Readers of the batch norm's own tensors do not matter: they are not changed.
    @rule(weighted_bn(op), where=(owned("w", "b"), _constant("mean", "var", "gamma", "beta")))
    def fold_batch_norm(m: Match, g: Rewriter) -> object:
        tensors = {
            name: getattr(m, name).tensor if getattr(m, name) is not None else None for name in ("b", "gamma", "beta")
        }
        weight, bias = fold(
            m.w.tensor,
            tensors["b"],
            tensors["gamma"],
            tensors["beta"],
            m.mean.tensor,
            m.var.tensor,
            m.bn.attrs["eps"],
            transposed=transposed,
            groups=m.weighted.attrs.get("groups", 1),
        )
        new_weight: NewParam = g.param(weight, like=m.w)
        new_bias = g.param(bias, like=m.b) if m.b is not None else g.param(bias, name="bias", near=m.w)
        folded = g.call(op, m.x, new_weight, new_bias, **m.weighted.attrs)
        return configured_as(folded, m.weighted.node)

    return fold_batch_norm


FOLD_BATCH_NORM = tuple(_rule(op) for op in WEIGHTED)
