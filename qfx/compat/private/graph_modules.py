"""Questions about prepared models (``fx.graph_module``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule

from qfx.api.modules import ObservedGraphModule, ObservedStandaloneGraphModule, QuantizedGraphModule
from qfx.errors import ConfigError
from qfx.graph.provenance import module_path


def _is_observed_module(module: Any) -> bool:
    """Whether `prepare_fx` made it."""
    return isinstance(module, ObservedGraphModule)


def _is_observed_standalone_module(module: Any) -> bool:
    """Whether it was prepared as a module of its own inside another."""
    return isinstance(module, ObservedStandaloneGraphModule)


class _Scopes(dict[str, tuple[str, type]]):
    """Path and class of the module each node ran in, or that it calls; the model for nodes it does not know.

    Whoever traces a graph module again, as the numeric suite does, gets other names for some nodes; a call of a module
    is found by the path, too, which is what such names are made from.
    """

    def __init__(self, model: GraphModule) -> None:
        modules = dict(model.named_modules(remove_duplicate=False))
        super().__init__()
        self._whole = ("", type(model))
        for node in model.graph.nodes:
            path = module_path(node)
            found = (path, type(modules.get(path, model)))
            if node.op == "call_module":
                self[_name_of(path)] = found
            self[node.name] = found

    def __missing__(self, name: str) -> tuple[str, type]:
        return self._whole


def _qconfigs(model: Any) -> dict[str, Any]:
    return {name: instance["qconfig"] for instance in model.plan["instances"].values() for name in instance["nodes"]}


def _name_of(path: str) -> str:
    """What torch names the call of a module by."""
    name = path.replace(".", "_")
    return f"_{name}" if name[:1].isdigit() else name


_KNOWN: dict[str, Callable[[Any], Any]] = {
    "node_name_to_scope": _Scopes,
    "node_name_to_qconfig": _qconfigs,
    "qconfig_mapping": lambda model: model.plan["mapping"],
    "is_observed_standalone_module": _is_observed_standalone_module,
}


def _get_observed_graph_module_attr(model: Any, attr_name: str) -> Any:
    """What prepare knew of a model.

    Args:
        model: what ``prepare_fx`` returned, or, for the first of these, what it was converted to.
        attr_name: ``"node_name_to_scope"``, ``"node_name_to_qconfig"`` (of the nodes that are quantized),
            ``"qconfig_mapping"`` or ``"is_observed_standalone_module"``.

    Raises:
        ConfigError: the model was not prepared, or qfx keeps no such thing.
    """
    converted = isinstance(model, QuantizedGraphModule) and attr_name == "node_name_to_scope"
    if not isinstance(model, ObservedGraphModule) and not converted:
        raise ConfigError(f"{type(model).__name__} was not made by prepare_fx, or does not know {attr_name!r} any more")
    if attr_name not in _KNOWN:
        raise ConfigError(f"qfx keeps no {attr_name!r} of a prepared model; it has {', '.join(_KNOWN)}")
    return _KNOWN[attr_name](model)


__all__ = ["GraphModule"]
