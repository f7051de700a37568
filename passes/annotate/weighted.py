"""Whether an op has a weight to quantize, and what kind of weight it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.fx import Node

from qfx.config import BackendPatternConfig
from qfx.graph import GraphView, Reading
from qfx.passes.annotate.inputs import weight_and_bias
from qfx.patterns.catalogue.weighted import WEIGHTED

# Layers with several weights, or with integers for inputs: no kernel takes a part of one.
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
TABLES = (nn.Embedding, nn.EmbeddingBag)


def has_weight(view: GraphView, root: Reading, config: BackendPatternConfig) -> bool:
    """Whether a node has a weight to quantize: a backend that trains a module or has a form for it says so."""
    own = root.node.op == "call_module" and (config.qat_module or config.reference_quantized_module) is not None
    return own or _is_weighted(view, root, config._input_type_to_index)


def _is_weighted(view: GraphView, root: Reading, roles: Mapping[str, int]) -> bool:
    """Whether a node has a weight to quantize: a weighted op, a fused module around one, or what the backend says."""
    if root.op in WEIGHTED or has_own_kernel(view, root.node):
        return True
    if root.node.op != "call_module":
        return root.op.opaque and weight_and_bias(view, root.node, roles)[0] is not None
    weight = _inner_weight(view, root)
    return weight is not None and weight.dim() > 1


def _inner_weight(view: GraphView, root: Reading) -> torch.Tensor | None:
    """The weight of the first part of a module."""
    if root.node.op != "call_module":
        return None
    inner = next(iter(view.module(str(root.node.target))._modules.values()), None)
    weight = getattr(inner, "weight", None) if inner is not None else None
    return weight if isinstance(weight, torch.Tensor) else None


def is_empty(view: GraphView, root: Reading) -> bool:
    """Whether a weighted node has a weight without elements: no input features, or no output features."""
    weight = getattr(root.input("w"), "tensor", None) if root.op in WEIGHTED else _inner_weight(view, root)
    return weight is not None and weight.numel() == 0


def computed_weight(root: Reading) -> str | None:
    """Name of the node that computes the weight of a layer spelled as a function; None where it is a constant."""
    weight = root.input("w") if root.op in WEIGHTED else None
    return weight.name if isinstance(weight, Node) else None


def has_own_kernel(view: GraphView, node: Node) -> bool:
    """Whether a node calls a recurrent layer or a table of embeddings, which are quantized as a whole."""
    return node.op == "call_module" and isinstance(view.module(str(node.target)), (*RECURRENT, *TABLES))


def reads_indices(view: GraphView, node: Node) -> bool:
    """Whether a node calls a table of embeddings, whose inputs are integers."""
    return node.op == "call_module" and isinstance(view.module(str(node.target)), TABLES)
