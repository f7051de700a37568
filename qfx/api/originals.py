"""The float weights behind packed ones, for who asks to keep them."""

from __future__ import annotations

from torch import Tensor

from qfx.api.modules import ObservedGraphModule, QuantizedGraphModule
from qfx.graph import GraphView
from qfx.graph.provenance import origins
from qfx.passes.annotate.inputs import weight_and_bias
from qfx.passes.observe import constant_behind


def original_weights(prepared: ObservedGraphModule, converted: QuantizedGraphModule) -> dict[str, list[Tensor | None]]:
    """Weight and bias of every layer spelled as a function, as they were before they were packed.

    Args:
        prepared: what was converted.
        converted: what it became.

    Returns:
        Name of the packed weight -> copies of weight and bias, None for no bias.
    """
    view = GraphView(prepared)
    roots = {node.name: node for node in prepared.graph.nodes if node.op == "call_function"}
    layers = {name: each for name, each in prepared.plan["instances"].items() if each["weighted"] and name in roots}
    by_origin = {origin: roots[name] for name, layer in layers.items() for origin in layer["origins"]}
    found: dict[str, list[Tensor | None]] = {}
    for fetched in [node for node in converted.graph.nodes if node.op == "get_attr"]:
        for reader in fetched.users if str(fetched.target) in converted.rebuilt else ():
            root = next((by_origin[origin.name] for origin in origins(reader) if origin.name in by_origin), None)
            if root is not None:
                constants = (constant_behind(view, value) for value in weight_and_bias(view, root))
                found[str(fetched.target)] = [
                    None if constant is None else constant.tensor.detach().clone() for constant in constants
                ]
    return found
