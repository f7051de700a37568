"""How much each layer loses by being quantized (``get_layer_sqnr_dict`` of ``fx._equalize``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter

from qfx.api.modules import ObservedGraphModule
from qfx.errors import ConfigError
from qfx.graph.provenance import module_path, origins
from qfx.passes.rewriter import KERNEL_KEY

_LAYERS = ("linear", "conv")  # in the names of their ops and classes


def get_layer_sqnr_dict(model_a: ObservedGraphModule, model_b: GraphModule, x: Tensor) -> dict[str, Tensor]:
    """Signal to quantization noise of every linear layer and convolution.

    Args:
        model_a: what ``prepare_fx`` returned.
        model_b: the same, converted.
        x: an input.

    Returns:
        Path of a module -> decibels, a tensor of one number. A function has the path of the module that calls it; of
        several in one module the last counts.

    Raises:
        ConfigError: `model_a` was not prepared.
    """
    if not isinstance(model_a, ObservedGraphModule):
        raise ConfigError(f"get_layer_sqnr_dict takes what prepare_fx returned first, got {type(model_a).__name__}")
    floats, codes = _Values(model_a), _Values(model_b)
    with torch.no_grad():
        floats.run(x)
        codes.run(x)
        return dict(_noise(floats, codes))


class _Values(Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.nodes = {node.name: node for node in gm.graph.nodes}


def _noise(floats: _Values, codes: _Values) -> Any:
    plan: Any = floats.module.plan
    lowered = {
        origin.name: node for node in codes.nodes.values() if KERNEL_KEY in node.meta for origin in origins(node)
    }
    for name in floats.nodes:  # in the order they run
        instance = plan["instances"].get(name)
        if instance is None:
            continue
        node = next((lowered[origin] for origin in instance["origins"] if origin in lowered), None)
        if node is None or not any(kind in instance["op"].lower() for kind in _LAYERS):
            continue
        signal, result = floats.env[floats.nodes[instance["anchor"]]], codes.env[node]
        error = torch.linalg.vector_norm(signal - (result.dequantize() if result.is_quantized else result))
        yield module_path(floats.nodes[name]), 20 * torch.log10(torch.linalg.vector_norm(signal) / error)
