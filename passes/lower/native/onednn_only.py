"""Containers whose kernel onednn alone has: a convolution and an addition, a linear layer and leaky relu or tanh."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from qfx.kernels.engines import limits
from qfx.kernels.kernel import Kernel, KernelSite
from qfx.kernels.sums import sums
from qfx.kernels.weighted import WEIGHTED as KERNELS
from qfx.nn import intrinsic
from qfx.nn.intrinsic import quantized as fused
from qfx.passes.lower.codes import bounds, constant_clamps, output, per_tensor_output
from qfx.passes.lower.native.weighted import ADDED, clamp_codes, module_parts, module_site
from qfx.passes.lower.site import batched, not_broadcast
from qfx.passes.rewriter import Rewriter
from qfx.passes.rule import Rule, rule
from qfx.patterns import Match, Pattern
from qfx.patterns.catalogue.quantized import module, module_of_two
from qfx.reject import Reject
from qfx.spellings import opaque

QUANTIZED: Mapping[type[nn.Module], Any] = MappingProxyType(
    {
        intrinsic.LinearLeakyReLU: fused.LinearLeakyReLU,
        intrinsic.LinearTanh: fused.LinearTanh,
        intrinsic.ConvAdd2d: fused.ConvAdd2d,
        intrinsic.ConvAddReLU2d: fused.ConvAddReLU2d,
    }
)


def _onednn_takes(m: Match) -> bool | Reject:
    """onednn is in this build, may be used, and has no limit that this layer passes."""
    site = module_site(m)
    if isinstance(site, Reject):
        return Reject(site.reason, m.op.node)
    setting = torch.backends.quantized.engine
    name = type(module_parts(m)[0]).__name__
    if setting not in ("x86", "onednn") or "onednn" not in torch.backends.quantized.supported_engines:
        return Reject(f"onednn alone has a kernel for {name}, and the engine is {setting!r}", m.op.node)
    if site.layer is None or site.weight_dtype is not torch.qint8:
        return Reject(f"onednn takes no such weight or padding for {name}", m.op.node)
    refused = Kernel.supports(KERNELS[site.op], site) or limits(site.layer, "onednn")
    return True if refused is None else Reject(refused.reason, m.op.node)


def _rule(cls: type[nn.Module]) -> Rule:
    two = cls in ADDED
    shape: Pattern = (module_of_two if two else module)(opaque(cls))
    guards = (
        per_tensor_output,
        constant_clamps,
        batched("out"),
        _onednn_takes,
        *((not_broadcast("y"),) if two else ()),
    )

    @rule(shape, where=guards)
    def lower_onednn_only(m: Match, g: Rewriter) -> Node:
        container, _ = module_parts(m)
        site, path = module_site(m), str(m.op.node.target)
        assert isinstance(site, KernelSite)
        made = QUANTIZED[cls].from_reference(container, *output(m), engine="onednn")
        at = path if g.sole_caller(path) else None
        inputs = (m.x, m.y) if two else (m.x,)
        y = g.module(made, *inputs, at=at, stem=path.replace(".", "_"))
        assert site.layer is not None
        g.integer(y, f"quantized.{site.op}_{'_'.join(_AFTER[cls])} (onednn)", sums("onednn", site.layer))
        return clamp_codes(g, y, bounds(m).beyond(*output(m)))

    return lower_onednn_only


_AFTER: Mapping[type[nn.Module], tuple[str, ...]] = MappingProxyType(
    {
        intrinsic.LinearLeakyReLU: ("leaky_relu",),
        intrinsic.LinearTanh: ("tanh",),
        intrinsic.ConvAdd2d: ("add",),
        intrinsic.ConvAddReLU2d: ("add", "relu"),
    }
)

ONEDNN_ONLY: tuple[Rule, ...] = tuple(map(_rule, QUANTIZED))
