"""Layers whose parameters are computed by a parametrization become plain layers with the parameters as they are now."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule
from torch.nn.utils import parametrize

from qfx.graph.walk import modules_in
from qfx.nn.intrinsic.fusers import plain
from qfx.passes.annotate.choices import choice
from qfx.passes.pipeline import Context

_LAYERS = frozenset((nn.Linear, *(getattr(nn, f"{kind}{n}d") for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3))))


def settle_parametrizations(gm: GraphModule, context: Context) -> bool:
    """Replace the parametrized layers that are to be quantized after training; the user's model keeps its own.

    A kernel takes numbers, and nothing trains any more. Where training goes on, ``nn.qat`` keeps a parametrization.
    """
    made: dict[nn.Module, nn.Module] = {}
    for node in gm.graph.find_nodes(op="call_module", sort=False):
        module = context.view.module(str(node.target))
        if "parametrizations" not in module._modules or module in made:
            continue
        resolved = choice(node)
        wanted = resolved is not None and resolved.qconfig is not None
        if wanted and parametrize.type_before_parametrizations(module) in _LAYERS:
            made[module] = _settled(module)
    for path, module in list(modules_in(gm, aliases=True)) if made else ():
        if module in made:
            context.rewriter.install(path, made[module])
    for node in gm.graph.find_nodes(op="call_module", sort=False) if made else ():
        context.view.forget(node)
    return bool(made)


def _settled(module: Any) -> nn.Module:
    made = plain(module)
    for name in ("weight", "bias"):
        value = getattr(module, name)
        made._parameters[name] = None if value is None else nn.Parameter(value.detach().clone(), value.requires_grad)
    return made  # type: ignore[no-any-return]
